"""Variants without a reference, in `core.training.losses.reference_free`."""

from core.domain.variants.entry import Variant
from core.domain.variants.options import NLL_WEIGHT, weight

REFERENCE_FREE = (
    Variant(
        name="reference_free",
        title="DPO without a reference",
        formula="−log σ(β·(S_w − S_l))",
        paper="arXiv:2305.18290",
        year=2023,
        choose_when="To see what the reference does: DPO with a uniform reference, from the authors' code.",
        default_beta=0.1,
        beta_means=(
            "Scale of the log-probabilities' difference. There is no reference: beta holds the policy to nothing."
        ),
        needs_reference=False,
        reward="β·S",
    ),
    Variant(
        name="simpo",
        title="Simple Preference Optimization",
        formula="−log σ(β·(S̄_w − S̄_l) − γ)",
        paper="arXiv:2405.14734",
        year=2024,
        choose_when="There is no room for a reference, and length bias matters; tune the learning rate with care.",
        default_beta=2.0,
        beta_means=(
            "Scale of the difference of mean log-probabilities per token; 2 to 10 are usual. There is no reference: "
            "beta holds the policy to nothing."
        ),
        learning_rates=(1e-6, 1e-5),
        needs_reference=False,
        reward="β·S̄",
        options={"gamma": weight("γ, the target reward margin; the authors use 0.3–0.8 of β", default=1.0, max=20.0)},
    ),
    Variant(
        name="orpo",
        title="Odds Ratio Preference Optimization",
        formula="−S̄_w − β·log σ(log odds_w − log odds_l), log odds = S̄ − log(1 − e^S̄)",
        paper="arXiv:2403.07691",
        year=2024,
        choose_when="One stage instead of SFT and DPO: from a base model, without a reference. β is the paper's λ.",
        default_beta=0.1,
        beta_means=(
            "Weight of the odds ratio beside the likelihood of the chosen response, which is the paper's lambda. "
            "There is no reference."
        ),
        learning_rates=(8e-6, 8e-5),
        has_own_sft=True,
        needs_reference=False,
        reward="β·S̄",
    ),
    Variant(
        name="cpo",
        title="Contrastive Preference Optimization",
        formula="−log σ(β·(S_w − S_l)) + α·(−S̄_w)",
        paper="arXiv:2401.08417",
        year=2024,
        choose_when="No reference, with a likelihood term that keeps the chosen responses likely (from translation).",
        default_beta=0.1,
        beta_means=(
            "Scale of the log-probabilities' difference beside the likelihood of the chosen response. There is no "
            "reference."
        ),
        learning_rates=(8e-6, 8e-5),
        has_own_sft=True,
        needs_reference=False,
        reward="β·S",
        options={"alpha": weight(NLL_WEIGHT, default=1.0, max=100.0)},
    ),
    Variant(
        name="unlikelihood",
        title="Unlikelihood",
        formula="−S_w + β·S_l",
        paper="arXiv:2305.18290",
        year=2023,
        choose_when="To see what DPO's weights of pairs do: its paper's baseline, which has none and degenerates.",
        default_beta=0.1,
        beta_means=(
            "Weight of the rejected response's likelihood, the paper's alpha in [0, 1]. There is no reference, and "
            "nothing ends the fall of the rejected responses but the end of training."
        ),
        needs_reference=False,
        reward="β·S",
    ),
)
