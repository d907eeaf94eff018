import ast
import math
import sys
from pathlib import Path

import pytest

from core import wording
from core.domain.variants import catalogue, checks
from core.domain.variants.catalogue import VARIANTS
from core.domain.variants.checks import BETA_MAX, BETA_MIN, VariantError, get_variant, validate_beta, validate_options
from core.domain.variants.entry import VariantOption

OPTIONS = [(variant.name, name) for variant in VARIANTS.values() for name in variant.options]


def test_the_default_comes_first() -> None:
    assert next(iter(VARIANTS)) == "dpo"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_entry_is_complete(name: str) -> None:
    variant = VARIANTS[name]
    assert variant.name == name
    assert variant.title
    assert variant.formula
    assert variant.choose_when.endswith(".")
    assert 2023 <= variant.year <= 2026
    if variant.paper.startswith("arXiv:"):
        assert variant.year == 2000 + int(variant.paper.removeprefix("arXiv:")[:2])
    assert validate_beta(variant.default_beta) == variant.default_beta


@pytest.mark.parametrize(("name", "option_name"), OPTIONS)
def test_defaults_pass_their_own_check(name: str, option_name: str) -> None:
    option = VARIANTS[name].options[option_name]
    assert option.description
    companions = dict([option.only_with]) if option.only_with else {}
    resolved = validate_options(name, {option_name: option.default, **companions})
    assert resolved[option_name] == option.default


@pytest.mark.parametrize("name", VARIANTS)
def test_resolving_twice_changes_nothing(name: str) -> None:
    resolved = validate_options(name, {})
    assert validate_options(name, resolved) == resolved


def test_names_used_elsewhere_point_to_one_variant() -> None:
    others = [other for variant in VARIANTS.values() for other in variant.other_names]
    assert len(others) == len(set(others))
    assert not set(others) & set(VARIANTS)
    with pytest.raises(VariantError, match="`sigmoid` is called `dpo` here"):
        get_variant("sigmoid")


@pytest.mark.parametrize("name", ["", "DPO", "ppo", None, 3, ["dpo"]])
def test_unknown_variant_names_the_list(name: object) -> None:
    with pytest.raises(VariantError) as caught:
        get_variant(name)
    assert caught.value.field == "variant"
    for known in VARIANTS:
        assert known in caught.value.message


def test_ignored_option_names_the_variants_that_take_it() -> None:
    with pytest.raises(VariantError) as caught:
        validate_options("dpo", {"label_smoothing": 0.1})
    assert caught.value.field == "variant_options/label_smoothing"
    assert caught.value.message.startswith("`label_smoothing` has no effect with `dpo`; use `cdpo`, `robust`")


def test_option_of_no_variant_names_what_the_variant_takes() -> None:
    with pytest.raises(VariantError) as caught:
        validate_options("simpo", {"gamma_beta_ratio": 0.5})
    assert caught.value.message == "no variant has an option `gamma_beta_ratio`; `simpo` takes `gamma`"
    with pytest.raises(VariantError, match="`dpo` takes none"):
        validate_options("dpo", {"nonsense": 1})


def test_option_without_effect_beside_another_is_refused() -> None:
    assert validate_options("f_dpo", {"divergence": "alpha", "alpha": 0.3}) == {"divergence": "alpha", "alpha": 0.3}
    assert validate_options("f_dpo", {"divergence": "forward_kl"}) == {"divergence": "forward_kl"}
    with pytest.raises(VariantError) as caught:
        validate_options("f_dpo", {"divergence": "forward_kl", "alpha": 0.3})
    assert caught.value.field == "variant_options/alpha"
    assert "only with `divergence` `alpha`" in caught.value.message
    assert "forward_kl" in caught.value.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), True, "0.1", None, [0.1]])
def test_what_is_not_a_finite_number_is_refused(value: object) -> None:
    with pytest.raises(VariantError, match="label_smoothing"):
        validate_options("cdpo", {"label_smoothing": value})
    with pytest.raises(VariantError) as caught:
        validate_beta(value)
    assert caught.value.field == "beta"


def test_bounds_of_options() -> None:
    assert validate_options("cdpo", {"label_smoothing": 0}) == {"label_smoothing": 0.0}
    for bad in (-1e-9, 0.5, 0.7):
        with pytest.raises(VariantError, match=r"must be at least 0 and below 0\.5"):
            validate_options("cdpo", {"label_smoothing": bad})
    with pytest.raises(VariantError, match=r"must be above 0 and below 0\.5"):
        validate_options("exo", {"label_smoothing": 0.0})
    assert validate_options("discopop", {"tau": 1}) == {"tau": 1.0}
    with pytest.raises(VariantError, match="must be above 0 and at most 1"):
        validate_options("discopop", {"tau": 1.5})


def test_choices() -> None:
    assert validate_options("ipo", {"normalization": "sum"}) == {"normalization": "sum"}
    for bad in ("avg", "", 1, None, True, ["sum"]):
        with pytest.raises(VariantError, match="must be `sum` or `mean`"):
            validate_options("ipo", {"normalization": bad})


def test_bounds_of_beta() -> None:
    assert validate_beta(1) == 1.0
    assert isinstance(validate_beta(1), float)
    assert validate_beta(BETA_MIN) == BETA_MIN
    assert validate_beta(BETA_MAX) == BETA_MAX
    for bad in (0, -0.1, BETA_MIN / 2, BETA_MAX * 1.01):
        with pytest.raises(VariantError):
            validate_beta(bad)


def test_only_the_standard_library_is_imported() -> None:
    for module in (checks, catalogue, wording):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        for name in imported:
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(
                ("core.domain.variant", "core.wording")
            ), name


# docs/guide/variants.md

DOCUMENT = Path(__file__).parents[3] / "docs" / "guide" / "variants.md"


def render_bounds(option: VariantOption) -> str:
    if option.choices:
        return " \\| ".join(f"`{choice}`" for choice in option.choices)
    left, right = "(" if option.is_min_exclusive else "[", ")" if option.is_max_exclusive else "]"
    return f"{left}{option.min:g}, {option.max:g}{right}"


def render_variants() -> str:
    """The part of the document that is written from the registry."""
    legend = f"In the formulae, {catalogue.LEGEND}."
    table = ["| Variant | Choose it when | β | Reference | Paper |", "|---|---|---|---|---|"]
    sections = []
    for variant in VARIANTS.values():
        arxiv = variant.paper.removeprefix("arXiv:")
        link = f"https://{arxiv}" if arxiv == variant.paper else f"https://arxiv.org/abs/{arxiv}"
        reference = "yes" if variant.needs_reference else "no"
        cells = (
            f"[`{variant.name}`](#{variant.name})",
            variant.choose_when,
            f"{variant.default_beta:g}",
            reference,
            f"[{arxiv}]({link}) ({variant.year})",
        )
        table.append("| " + " | ".join(cells) + " |")
        lines = [f"### {variant.name}", "", f"{variant.title}. Rewards are {variant.reward}.", ""]
        lines += ["```", variant.formula, "```"]
        if variant.options:
            lines += ["", "| Option | Default | Allowed | Meaning |", "|---|---|---|---|"]
        for name, option in variant.options.items():
            only = " (with `{}` `{}`)".format(*option.only_with) if option.only_with else ""
            lines.append(f"| `{name}`{only} | {option.default} | {render_bounds(option)} | {option.description} |")
        if variant.other_names:
            lines += ["", "Elsewhere called " + ", ".join(f"`{other}`" for other in variant.other_names) + "."]
        sections.append("\n".join(lines))
    return "\n".join(table) + "\n\n" + legend + "\n\n" + "\n\n".join(sections) + "\n"


MARK = "-->\n"
"""What is written from the catalogue begins behind the comment that says so."""


def test_document_says_what_the_catalogue_says() -> None:
    written = DOCUMENT.read_text(encoding="utf-8").split(MARK, 1)[1].strip()
    is_current = written == render_variants().strip()
    assert is_current, "the page differs from the catalogue; write it anew: python tests/unit/domain/test_variants.py"


if __name__ == "__main__":
    by_hand = DOCUMENT.read_text(encoding="utf-8").split(MARK, 1)[0]
    DOCUMENT.write_text(f"{by_hand}{MARK}\n{render_variants()}", encoding="utf-8")
