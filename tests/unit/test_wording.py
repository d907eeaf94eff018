"""Wording of messages: numbers with their noun, and what was probably meant."""

import pytest

from core.base_models.catalogue import CATALOGUE, plan_pull
from core.base_models.directory import _not_found
from core.base_models.errors import InvalidModelSpec
from core.domain.variants.checks import VariantError, get_variant
from core.settings import SettingsError, load_settings
from core.wording import counted, did_you_mean


def test_numbers_with_their_noun() -> None:
    assert [counted(number, "row") for number in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]


@pytest.mark.parametrize(
    ("name", "meant"), [("dop", "dpo"), ("varient", ""), ("stories260", ""), ("x" * 10_000, ""), ("", "")]
)
def test_the_closest_name(name: str, meant: str) -> None:
    assert did_you_mean(name, ["dpo", "ipo", "simpo"]) == (f"did you mean `{meant}`? " if meant else "")


def test_variants_and_settings() -> None:
    with pytest.raises(VariantError, match="`dop` is not a variant; did you mean `dpo`"):
        get_variant("dop")


def test_an_unknown_base_model_says_what_is_there_and_what_works() -> None:
    names = ["stories260k", "smollm2-135m-instruct"]
    near = _not_found("stories260", names)
    assert near.endswith("Did you mean `stories260k`?")
    assert "models pull" not in near
    assert "There are: stories260k, smollm2-135m-instruct." in near
    far = _not_found("gpt2", names)
    assert "preftune models pull gpt2" not in far
    assert "`preftune models pull <organisation>/<name>@<commit>`" in far
    (known, *_) = CATALOGUE
    assert f"`preftune models pull {known}`" in _not_found(known, ["stories260k"])
    assert plan_pull(known).name == known
    with pytest.raises(InvalidModelSpec, match=f"did you mean `{known}`"):
        plan_pull(known[:-1])


def test_an_unknown_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFTUNE_DATADIR", "x")
    with pytest.raises(SettingsError, match="did you mean `PREFTUNE_DATA_DIR`"):
        load_settings()
