"""Catalogue of preference losses: user settings with defaults and bounds, formulas and papers.

`core.domain.variants.checks` compares what users ask for with it; `core.training.losses.registry` maps the same names
to functions, and a test compares the two. Equation numbers stand with the functions.
"""

from collections.abc import Mapping

from core.domain.variants.entry import Variant, VariantOption

LEGEND = (
    "w = chosen, l = rejected; |y| = scored response tokens; S = Σ log π_θ(y_t), the policy's log-probability of a "
    "response; ρ = S − S_ref, its log-ratio to the reference; S̄ = S/|y|, ρ̄ = ρ/|y|; σ = sigmoid"
)
"""Read every `formula` with this. Natural logarithms; one loss per pair."""


def _label_smoothing(default: float, *, is_min_exclusive: bool = False) -> VariantOption:
    return VariantOption(
        description="ε, the assumed share of pairs whose labels are swapped",
        default=default,
        min=0.0,
        max=0.5,
        is_min_exclusive=is_min_exclusive,
        is_max_exclusive=True,
    )


def _weight(description: str, default: float, max: float) -> VariantOption:
    return VariantOption(description=description, default=default, min=0.0, max=max)


_NLL_WEIGHT = "α, weight of the chosen response's mean negative log-likelihood per token"

_MARGIN = (
    Variant(
        name="dpo",
        title="Direct Preference Optimization",
        formula="−log σ(β·(ρ_w − ρ_l))",
        paper="arXiv:2305.18290",
        year=2023,
        choose_when="Start here: the best understood loss, and the one most published recipes use.",
        default_beta=0.1,
        other_names=("sigmoid",),
    ),
    Variant(
        name="plackett_luce",
        title="DPO on ranked lists (Plackett–Luce)",
        formula="log(1 + Σ_l exp(β·(ρ_l − ρ_w))) / n, over the n responses l that w is preferred to in its list",
        paper="arXiv:2305.18290",
        year=2023,
        choose_when="Prompts have three or more ranked responses: the whole order counts, not each pair by itself. "
        "On pairs alone it is DPO.",
        default_beta=0.1,
        compares_lists=True,
    ),
    Variant(
        name="cdpo",
        title="Conservative DPO (label smoothing)",
        formula="−(1−ε)·log σ(β·(ρ_w − ρ_l)) − ε·log σ(−β·(ρ_w − ρ_l))",
        paper="ericmitchell.ai/cdpo.pdf",
        year=2023,
        choose_when="Some labels are wrong: margins stop growing at β·(ρ_w − ρ_l) = log((1−ε)/ε).",
        default_beta=0.1,
        options={"label_smoothing": _label_smoothing(0.1)},
    ),
    Variant(
        name="robust",
        title="Robust DPO",
        formula="[−(1−ε)·log σ(β·(ρ_w − ρ_l)) + ε·log σ(−β·(ρ_w − ρ_l))] / (1−2ε)",
        paper="arXiv:2403.00409",
        year=2024,
        choose_when="You know the share of swapped labels: in expectation the loss equals DPO's on clean labels.",
        default_beta=0.1,
        options={"label_smoothing": _label_smoothing(0.1)},
    ),
    Variant(
        name="ipo",
        title="Identity Preference Optimization",
        formula='(ρ̄_w − ρ̄_l − 1/(2β))²; with normalization "sum": (ρ_w − ρ_l − 1/(2β))²',
        paper="arXiv:2310.12036",
        year=2023,
        choose_when="DPO overfits labels that all agree: the margin is pulled to 1/(2β), not to infinity.",
        default_beta=0.1,
        beta_means=(
            "The margin that training aims at is 1/(2 beta): a small beta asks for a large margin. It is no "
            "temperature."
        ),
        reward='β·ρ̄; with normalization "sum": β·ρ',
        options={
            "normalization": VariantOption(
                type="string",
                description="sum over response tokens, or their mean (which the paper's authors confirmed they used)",
                default="mean",
                choices=("sum", "mean"),
            )
        },
    ),
    Variant(
        name="hinge",
        title="Hinge loss (SLiC, RSO)",
        formula="max(0, 1 − β·(ρ_w − ρ_l))",
        paper="arXiv:2309.06657",
        year=2023,
        choose_when="Pairs that are ranked right by a margin of 1/β should stop having any effect.",
        default_beta=0.1,
        beta_means="Pairs stop having an effect at a margin of 1/beta: a small beta asks for a large margin.",
        other_names=("slic", "rso"),
    ),
    Variant(
        name="length_normalized",
        title="Length-normalised DPO",
        formula="−log σ(β·(ρ̄_w − ρ̄_l))",
        paper="arXiv:2411.15124",
        year=2024,
        choose_when="Responses differ much in length, or answers grow longer in training; β is about 50 times DPO's.",
        default_beta=5.0,
        beta_means=(
            "How strongly the policy is held to the reference, per token: it compares means over tokens, so that good "
            "values are about 50 times DPO's."
        ),
        reward="β·ρ̄",
        other_names=("sigmoid_norm", "dpo_norm"),
    ),
    Variant(
        name="ld_dpo",
        title="Length-desensitised DPO",
        formula="−log σ(β·(ρ'_w − ρ'_l)), ρ' = ρ over the first min(|y_w|,|y_l|) tokens + α·ρ over the rest",
        paper="arXiv:2409.06411",
        year=2024,
        choose_when="Answers grow longer in training, but what they say first should count as in DPO.",
        default_beta=0.1,
        needs_prefix_sums=True,
        reward="β·ρ'",
        options={
            "alpha": _weight("α, how much the tokens past the shorter response count; 1 is DPO", default=0.5, max=1.0)
        },
    ),
    Variant(
        name="r_dpo",
        title="Length-regularised DPO",
        formula="−log σ(β·(ρ_w − ρ_l) + α·(|y_w| − |y_l|))",
        paper="arXiv:2403.19159",
        year=2024,
        choose_when="The chosen responses win by being longer, and that should not be learnt.",
        default_beta=0.1,
        options={"alpha": _weight("α, the penalty per token of length difference", default=0.05, max=10.0)},
    ),
    Variant(
        name="rpo",
        title="DPO with a negative log-likelihood term",
        formula="−log σ(β·(ρ_w − ρ_l)) + α·(−S̄_w)",
        paper="arXiv:2404.19733",
        year=2024,
        choose_when="The chosen responses become less likely in training; the usual cure (Llama 3 used α = 0.2).",
        default_beta=0.1,
        options={"alpha": _weight(_NLL_WEIGHT, default=1.0, max=100.0)},
        other_names=("irpo", "dpo_nll"),
    ),
    Variant(
        name="dpop",
        title="DPO-Positive",
        formula="−log σ(β·(ρ_w − ρ_l − λ·max(0, −ρ_w)))",
        paper="arXiv:2402.13228",
        year=2024,
        choose_when="Pairs differ in a few tokens (maths, code) and the chosen response must not become less likely.",
        default_beta=0.3,
        options={
            "lambda": _weight("λ, the penalty for a chosen response below the reference", default=50.0, max=1000.0)
        },
        other_names=("dpo_positive", "smaug"),
    ),
    Variant(
        name="exo",
        title="Efficient Exact Optimization (pairs)",
        formula="q·(log q − log(1−ε)) + (1−q)·(log(1−q) − log ε), q = σ(β·(ρ_w − ρ_l))",
        paper="arXiv:2402.00856",
        year=2024,
        choose_when="You want the mode-seeking reverse KL between the policy's and the labels' preferences.",
        default_beta=0.1,
        options={"label_smoothing": _label_smoothing(1e-3, is_min_exclusive=True)},
        other_names=("exo_pair",),
    ),
    Variant(
        name="discopop",
        title="DiscoPOP (log-ratio modulated)",
        formula="(1−m)·(−log σ(u)) + m·exp(−u), u = β·(ρ_w − ρ_l), m = σ(u/τ)",
        paper="arXiv:2406.08414",
        year=2024,
        choose_when="An alternative to DPO found by search over losses; worth a run when DPO has plateaued.",
        default_beta=0.05,
        options={
            "tau": VariantOption(
                description="τ, how sharply the loss passes from logistic to exponential",
                default=0.05,
                min=0.0,
                max=1.0,
                is_min_exclusive=True,
            )
        },
    ),
    Variant(
        name="f_dpo",
        title="f-DPO (other divergences than reverse KL)",
        formula="−log σ(β·(g_w − g_l)), g = f'(e^ρ); f'(u): forward_kl 1 − 1/u, js log(2u/(1+u)), alpha (1 − u^−α)/α",
        paper="arXiv:2309.16240",
        year=2023,
        choose_when="Diversity matters: other divergences than DPO's reverse KL trade reward for it differently.",
        default_beta=0.1,
        beta_means=(
            "How strongly the policy is held to the reference, in the chosen divergence: a small beta lets it move far."
        ),
        reward="β·f'(e^ρ)",
        options={
            "divergence": VariantOption(
                type="string",
                description="what keeps the policy near the reference",
                default="js",
                choices=("forward_kl", "js", "alpha"),
            ),
            "alpha": VariantOption(
                description="α of the α-divergence: towards 0 it is reverse KL (DPO), 1 is forward KL",
                default=0.5,
                min=0.0,
                max=1.0,
                is_min_exclusive=True,
                only_with=("divergence", "alpha"),
            ),
        },
    ),
    Variant(
        name="wpo",
        title="Weighted Preference Optimization",
        formula="−W·log σ(β·(ρ_w − ρ_l)), W = Π over w, l of exp(mean_t [log π_θ(y_t) − log Σ_v π_θ(v)²]), a constant",
        paper="arXiv:2406.11827",
        year=2024,
        choose_when="The responses were written by another model: pairs the policy itself might write count more.",
        default_beta=0.1,
        needs_token_weights=True,
    ),
)

_POINTWISE = (
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
            "label_smoothing": _label_smoothing(0.0),
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
            "desirable_weight": _weight("λ_D, weight of responses marked good", default=1.0, max=100.0),
            "undesirable_weight": _weight("λ_U, weight of responses marked bad", default=1.0, max=100.0),
        },
    ),
)

_REFERENCE_FREE = (
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
        options={"gamma": _weight("γ, the target reward margin; the authors use 0.3–0.8 of β", default=1.0, max=20.0)},
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
        options={"alpha": _weight(_NLL_WEIGHT, default=1.0, max=100.0)},
    ),
)

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (*_MARGIN, *_POINTWISE, *_REFERENCE_FREE)}
"""All variants by name, `dpo` first."""
