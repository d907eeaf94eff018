// Words that are not everyday, explained where they stand; all of them on one page.

import { h } from "./dom.js";

export const WORDS = {
  policy: "The model that is trained; when the job has ended, the tuned model.",
  reference: "The model as it was before the preference stage, frozen. The policy is compared with it.",
  variant: "The objective of the preference stage: which loss is taken of a pair, such as DPO or IPO.",
  beta: "How strongly training stays close to the reference model: small values let the policy go further.",
  pair: "One prompt with a response that was chosen and one that was rejected.",
  unpaired: "Single responses, each marked good or bad; KTO and its kin learn from them.",
  responses: "What models answered to prompts, to be judged; supervised fine-tuning learns from them as well.",
  demonstration: "A prompt with a response to imitate; supervised fine-tuning learns from them.",
  preference: "Pairs of a chosen and a rejected response to one prompt.",
  "implicit reward": "beta times how much likelier the policy finds a response than the reference does. No reward model is involved.",
  margin: "Reward of the chosen response minus that of the rejected one; above 0 the pair is ranked as in the data.",
  accuracy: "Share of pairs whose chosen response has the higher reward. Guessing gives 50 %.",
  "reward model": "A model whose output is one number for a response: the larger, the better it finds it.",
  calibration: "Whether the probabilities that a reward model gives to preferences are those found; an error of 0 is perfect.",
  "gradient weight": "How much a pair still moves the model: 0.5 at the start, near 0 once it is learnt.",
  "held out": "Rows that are not trained on, so that results on them tell what was learnt.",
  interval: "Where the figure would lie in 95 of 100 draws of as many held-out rows.",
  baseline: "What one gets without this training, measured on the same rows.",
  nats: "Unit of log-probabilities: one nat is a factor of 2.72.",
  perplexity: "How many tokens the model wavers between on average; 1 is certainty.",
  KL: "How far the policy has moved from the reference, in nats for each sampled response.",
  SFT: "Supervised fine-tuning: the model learns to write the chosen responses, before it learns preferences.",
  DPO: "The preference stage: Direct Preference Optimization, or the variant that was chosen.",
  LoRA: "Trains a small adapter beside the frozen weights: far less memory, mostly equal results.",
  staging: "The worker fetches base model and data and checks them.",
  evaluation: "The policy is measured on held-out rows, and the sample prompts are answered.",
  publishing: "Files are written, verified and recorded.",
  checkpoint: "State of a training at a step, from which it can go on with the same result.",
  attempt: "One try of a worker at the job. A job whose worker died continues in the next one.",
  doctor: "Checks that watch a training for known faults and say what helps.",
  "set aside": "A valid row that no training can learn from, such as equal responses. It is listed in the report.",
  malformed: "A row that cannot be read as it is declared. The report names its line and what is wrong.",
  generation: "What models answered to prompts, at once; their answers are a dataset of responses.",
  judgement: "A judge’s verdicts on pairs of answers: which of two is better.",
  judge: "Who says which of two answers is better: a rule, rewards, a language model, or people.",
  "win rate": "Share of pairs in which a model’s answer is found better than the other’s, a tie counting half; 50 % is even.",
  "length-controlled": "What the win rate would be if both answers were equally long.",
  kappa: "Agreement beyond chance: 1 is always, 0 is as often as by chance.",
  "position bias": "Whether a judge prefers the answer that it is shown first.",
  rounds: "The policy answers, a judge finds the better answers, and the policy is trained on them; several times.",
  drift: "How far a policy is from the first one, in nats for each of its answers.",
  sweep: "One job run with several values of a setting, as one.",
  split: "Rows that are trained on, or held out.",
};

/** A word with its meaning in a tooltip; `shown` is how it is written here. */
export function term(word, shown = word) {
  return h("span.term", { title: WORDS[word] }, shown);
}
