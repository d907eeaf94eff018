// Where each setting stands in the form, and what it is called there. A setting that is not named here stands in the
// last group, under its own name.

export const GROUPS = [
  {
    title: "Data, validation and length",
    pointers: [
      "/max_length",
      "/validation_fraction",
      "/validation_dataset_id",
      "/exclude_lines",
      "/swap_lines",
      "/chat_template_kwargs",
      "/group_by_prompt",
    ],
  },
  { title: "Supervised fine-tuning (SFT)", below: "/sft/" },
  { title: "Preference stage (DPO)", below: "/dpo/" },
  { title: "Reward model", below: "/reward/" },
  {
    title: "Evaluation, early stopping and checkpoints",
    pointers: [
      "/evaluate_every_steps",
      "/checkpoint_every_steps",
      "/keep_checkpoints",
      "/keep_best",
      "/score_training_pairs",
      "/early_stopping",
      "/sample_prompts",
    ],
  },
  {
    title: "Run",
    pointers: ["/seed", "/precision", "/artifact_dtype", "/priority", "/max_runtime_seconds", "/nodes", "/reuse", "/metadata"],
  },
];

/** Shown above the groups, with controls of their own. */
export const ON_TOP = ["/dataset_id", "/base_model", "/name", "/method", "/variant", "/beta", "/variant_options", "/sft", "/dpo", "/reward", "/lora"];

const LABELS = {
  "/max_length": "Longest row, tokens",
  "/validation_fraction": "Held-out share",
  "/validation_dataset_id": "Held-out dataset",
  "/exclude_lines": "Lines left out",
  "/swap_lines": "Lines whose pair is swapped",
  "/chat_template_kwargs": "Chat template variables, as JSON",
  "/group_by_prompt": "Pairs of a prompt in one step",
  "/evaluate_every_steps": "Evaluate every … steps",
  "/checkpoint_every_steps": "Checkpoint every … steps",
  "/keep_checkpoints": "Checkpoints kept",
  "/keep_best": "Best checkpoint by",
  "/score_training_pairs": "Score training pairs at the end",
  "/early_stopping": "Stop early when validation no longer improves",
  "/early_stopping/min_delta": "Least improvement",
  "/early_stopping/restore_best": "Publish the best policy",
  "/sample_prompts": "Sample prompts",
  "/artifact_dtype": "Type of published weights",
  "/max_runtime_seconds": "Time limit, seconds",
  "/reuse": "Reuse finished stages",
  "/metadata": "Metadata, as JSON",
  "/sft": "Supervised fine-tuning (SFT)",
  "/lora": "Train a LoRA adapter instead of all weights",
  "/lora/target_modules": "Layers",
  "/lora/target_parameters": "Experts",
  "/sft/batch_size": "Rows per step",
  "/sft/dataset_id": "SFT data",
  "/dpo/batch_size": "Pairs per step",
  "/reward/batch_size": "Pairs per step",
  "/reward/center_rewards_coefficient": "Centring of rewards",
};

/** A setting's name for people. */
export function labelOf(pointer) {
  const name = pointer.split("/").at(-1).replaceAll("_", " ");
  return LABELS[pointer] ?? name[0].toUpperCase() + name.slice(1);
}

const BLOCKS = { sft: "SFT", dpo: "DPO", reward: "Reward model", lora: "LoRA", early_stopping: "Early stopping", variant_options: "Option" };

/** A setting's name with its block: "DPO: Learning rate". */
export function pathName(pointer) {
  const [block, inner] = pointer.slice(1).split("/");
  return inner ? `${BLOCKS[block] ?? block}: ${labelOf(pointer)}` : labelOf(pointer);
}
