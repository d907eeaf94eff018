"""Variants whose loss takes the margin between the log-ratios of a pair, in `core.training.losses.margin`."""

from core.domain.variants.entry import Variant, VariantOption
from core.domain.variants.options import NLL_WEIGHT, label_smoothing, weight

MARGIN = (
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
        options={"label_smoothing": label_smoothing(0.1)},
    ),
    Variant(
        name="robust",
        title="Robust DPO",
        formula="[−(1−ε)·log σ(β·(ρ_w − ρ_l)) + ε·log σ(−β·(ρ_w − ρ_l))] / (1−2ε)",
        paper="arXiv:2403.00409",
        year=2024,
        choose_when="You know the share of swapped labels: in expectation the loss equals DPO's on clean labels.",
        default_beta=0.1,
        options={"label_smoothing": label_smoothing(0.1)},
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
            "alpha": weight("α, how much the tokens past the shorter response count; 1 is DPO", default=0.5, max=1.0)
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
        options={"alpha": weight("α, the penalty per token of length difference", default=0.05, max=10.0)},
    ),
    Variant(
        name="rpo",
        title="DPO with a negative log-likelihood term",
        formula="−log σ(β·(ρ_w − ρ_l)) + α·(−S̄_w)",
        paper="arXiv:2404.19733",
        year=2024,
        choose_when="The chosen responses become less likely in training; the usual cure (Llama 3 used α = 0.2).",
        default_beta=0.1,
        options={"alpha": weight(NLL_WEIGHT, default=1.0, max=100.0)},
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
            "lambda": weight("λ, the penalty for a chosen response below the reference", default=50.0, max=1000.0)
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
        options={"label_smoothing": label_smoothing(1e-3, is_min_exclusive=True)},
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
