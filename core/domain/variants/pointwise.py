"""Variants whose loss takes each response by itself, in `core.training.losses.pointwise` and `unpaired`."""

from core.domain.variants.entry import Variant, VariantOption
from core.domain.variants.options import label_smoothing, weight

POINTWISE = (
    Variant(
        name="apo_zero",
        title="Anchored Preference Optimization, zero",
        formula="(1 − σ(β·ρ_w)) + σ(β·ρ_l)",
        paper="arXiv:2408.06266",
        year=2024,
        choose_when="The chosen responses are better than the policy's own: chosen goes up, rejected goes down.",
        default_beta=0.1,
    ),
    Variant(
        name="apo_down",
        title="Anchored Preference Optimization, down",
        formula="σ(β·ρ_w) + (1 − σ(β·(ρ_w − ρ_l)))",
        paper="arXiv:2408.06266",
        year=2024,
        choose_when="The policy is already better than the chosen responses: both go down, rejected faster.",
        default_beta=0.1,
    ),
    Variant(
        name="nca",
        title="Noise Contrastive Alignment (pairs)",
        formula="−log σ(β·ρ_w) − ½·log σ(−β·ρ_w) − ½·log σ(−β·ρ_l)",
        paper="arXiv:2402.05369",
        year=2024,
        choose_when="The chosen responses' likelihood should not fall: absolute rewards are fitted, not only margins.",
        default_beta=0.01,
        beta_means="Scale of each response's own reward; good values are about a tenth of DPO's.",
        other_names=("nca_pair",),
    ),
    Variant(
        name="bco",
        title="Binary Classifier Optimization (pairs, no baseline)",
        formula="−log σ(β·ρ_w) − log σ(−β·ρ_l)",
        paper="arXiv:2404.04656",
        year=2024,
        choose_when="Chosen should be good and rejected bad each by itself, as if labelled one at a time.",
        default_beta=0.01,
        beta_means="Scale of each response's own reward; good values are about a tenth of DPO's.",
        other_names=("bco_pair",),
    ),
    Variant(
        name="sppo",
        title="Self-Play Preference Optimization (hard labels)",
        formula="(ρ_w − 1/(2β))² + (ρ_l + 1/(2β))²",
        paper="arXiv:2405.00675",
        year=2024,
        choose_when="Rounds of training on the policy's own ranked samples; its losses are large numbers by design.",
        default_beta=0.001,
        beta_means=(
            "Each log-ratio is pulled to 1/(2 beta) for chosen and -1/(2 beta) for rejected responses: 0.001 asks for "
            "500 nats."
        ),
        other_names=("sppo_hard",),
    ),
    Variant(
        name="aot",
        title="Alignment via Optimal Transport",
        formula=(
            "−(1−ε)·log σ(β·d) − ε·log σ(−β·d) per quantile; paired: d = sort(S_w − S_l) − sort(S_ref,w − S_ref,l); "
            "unpaired: d = sort(ρ_w) − sort(ρ_l)"
        ),
        paper="arXiv:2406.05882",
        year=2024,
        choose_when="Chosen should beat rejected as distributions over the batch, not pair by pair; use large batches.",
        default_beta=0.01,
        beta_means="Scale of the sorted differences that are compared; good values are about a tenth of DPO's.",
        is_batch_level=True,
        options={
            "pairing": VariantOption(
                type="string",
                description="sort the margins of the pairs, or chosen and rejected rewards each by themselves",
                default="paired",
                choices=("paired", "unpaired"),
            ),
            "label_smoothing": label_smoothing(0.0),
        },
    ),
    Variant(
        name="kto",
        title="Kahneman-Tversky Optimization",
        formula="good: λ_D·(1 − σ(β·(ρ − z))); bad: λ_U·(1 − σ(β·(z − ρ))); z = max(0, estimated KL(π_θ‖π_ref))",
        paper="arXiv:2402.01306",
        year=2024,
        choose_when="There are no pairs, only single responses marked good or bad.",
        default_beta=0.1,
        data="unpaired",
        options={
            "desirable_weight": weight("λ_D, weight of responses marked good", default=1.0, max=100.0),
            "undesirable_weight": weight("λ_U, weight of responses marked bad", default=1.0, max=100.0),
        },
    ),
)
