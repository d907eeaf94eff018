"""Names of the engine's metrics, as TRL and the DPO authors write them, with descriptions.

Every value is an average over all pairs of the optimizer step (or of the validation set), never a mean of means over
micro-batches. The values of step k are computed before update k: the first DPO point shows the untouched policy.
"""

from dataclasses import dataclass
from typing import Literal

LOSS = "loss"
MEAN_TOKEN_ACCURACY = "mean_token_accuracy"
CHOSEN_REWARDS = "rewards/chosen"
REJECTED_REWARDS = "rewards/rejected"
REWARD_MARGINS = "rewards/margins"
REWARD_ACCURACIES = "rewards/accuracies"
REWARD_TIES = "rewards/ties"
REWARD_MARGINS_P10 = "rewards/margins_p10"
REWARD_MARGINS_P50 = "rewards/margins_p50"
REWARD_MARGINS_P90 = "rewards/margins_p90"
CHOSEN_LOGPS = "logps/chosen"
REJECTED_LOGPS = "logps/rejected"
CHOSEN_LOGPS_FELL = "logps/chosen_fell"
GRADIENT_WEIGHT = "gradient_weight"
LENGTH_CORRELATION = "rewards/length_correlation"
CALIBRATION_ERROR = "rewards/calibration_error"
SAMPLED_KL = "kl/sampled"
SAMPLED_KL_PER_TOKEN = "kl/sampled_per_token"
REWARDS = "rewards"
LOGPS = "logps"
KL = "kl"
GRAD_NORM = "grad_norm"
LEARNING_RATE = "learning_rate"
NUM_TOKENS = "num_tokens"
TOKENS_PER_SECOND = "tokens_per_second"
PAIRS_PER_SECOND = "pairs_per_second"
PEAK_MEMORY_BYTES = "peak_memory_bytes"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Description of a curve."""

    name: str
    description: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None


_METRICS = (
    Metric(
        name=LOSS,
        description="SFT: mean negative log-likelihood per response token. DPO: mean preference loss per pair. Reward "
        "model: mean -log sigmoid(margin) per pair, with the centring term where asked for.",
        unit="nats",
        better="lower",
    ),
    Metric(
        name=MEAN_TOKEN_ACCURACY,
        description="SFT: share of response tokens that are the likeliest ones where they stand.",
        unit="share",
        better="higher",
    ),
    Metric(
        name=CHOSEN_REWARDS,
        description="Mean implicit reward (of a reward model: its number) of the chosen responses (unpaired data: of "
        "those marked good).",
    ),
    Metric(
        name=REJECTED_REWARDS,
        description="Mean implicit reward (of a reward model: its number) of the rejected responses (unpaired data: of "
        "those marked bad).",
    ),
    Metric(name=REWARD_MARGINS, description="Mean of chosen minus rejected reward.", better="higher"),
    Metric(
        name=REWARD_ACCURACIES,
        description="Share of pairs whose chosen reward is strictly greater. All implicit rewards are 0 before "
        "the first update, so the first point of DPO is 0. Unpaired data: share of good responses above 0 and bad "
        "ones below.",
        unit="share",
        better="higher",
    ),
    Metric(
        name=REWARD_TIES,
        description="Share of pairs with equal rewards; in DPO 1 before the first update.",
        unit="share",
    ),
    Metric(name=REWARD_MARGINS_P10, description="10th percentile of the reward margins."),
    Metric(name=REWARD_MARGINS_P50, description="Median of the reward margins."),
    Metric(name=REWARD_MARGINS_P90, description="90th percentile of the reward margins."),
    Metric(name=CHOSEN_LOGPS, description="Mean log-probability of a chosen response under the policy.", unit="nats"),
    Metric(
        name=REJECTED_LOGPS, description="Mean log-probability of a rejected response under the policy.", unit="nats"
    ),
    Metric(
        name=CHOSEN_LOGPS_FELL,
        description="Share of pairs whose chosen response became less likely than under the reference "
        "(likelihood displacement, arXiv:2410.08847).",
        unit="share",
    ),
    Metric(
        name=GRADIENT_WEIGHT,
        description="Mean of sigmoid(-reward margin), the weight DPO's gradient gives a pair (arXiv:2305.18290, "
        "section 4): 0.5 at the start, towards 0 as pairs are learnt.",
        unit="share",
    ),
    Metric(
        name=LENGTH_CORRELATION,
        description="Correlation, over the pairs, of the reward margin with how many tokens longer the chosen response "
        "is; null where one of them does not vary. Near 1: the policy learns length.",
    ),
    Metric(
        name=CALIBRATION_ERROR,
        description="Reward model, at evaluations: by how much sigmoid(margin), the probability that it gives to the "
        "response it prefers, is off the share of pairs in which that one was chosen: mean over ten bins, weighted by "
        "their pairs (expected calibration error, arXiv:1706.04599).",
        unit="share",
        better="lower",
    ),
    Metric(
        name=SAMPLED_KL,
        description="At evaluations: estimated divergence KL(reference || policy), the mean of log reference - log "
        "policy over a few responses sampled from the reference, the same ones each time.",
        unit="nats",
    ),
    Metric(name=SAMPLED_KL_PER_TOKEN, description="The same, per sampled token.", unit="nats"),
    Metric(name=REWARDS, description="Unpaired data and reward models: mean reward of a response."),
    Metric(name=LOGPS, description="Unpaired data: mean log-probability of a response under the policy.", unit="nats"),
    Metric(
        name=KL, description="Unpaired data: the estimated divergence of the policy from the reference.", unit="nats"
    ),
    Metric(name=GRAD_NORM, description="Global norm of the gradient before clipping."),
    Metric(name=LEARNING_RATE, description="Learning rate of this update."),
    Metric(name=NUM_TOKENS, description="Tokens the model computed in this step.", unit="tokens"),
    Metric(name=TOKENS_PER_SECOND, description="Tokens computed per second of this step.", unit="tokens/s"),
    Metric(name=PAIRS_PER_SECOND, description="Pairs (rows in SFT) per second of this step.", unit="rows/s"),
    Metric(name=PEAK_MEMORY_BYTES, description="Most memory held so far, on the GPU or by the process.", unit="bytes"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}

TIMING = frozenset({TOKENS_PER_SECOND, PAIRS_PER_SECOND, PEAK_MEMORY_BYTES})
"""What differs between two identical runs; everything else is equal to the last bit."""
