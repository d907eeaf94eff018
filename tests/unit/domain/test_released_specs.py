"""Specs that the first release (7b06ab9) stored load, and what is stored now can be read by its workers."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from core.domain.jobs import job_spec, presets
from core.domain.jobs.job_spec import DpoSettings, JobRequest, JobSpec, StageSettings, resolve_staged
from core.domain.jobs.released_fields import RELEASED_FIELDS
from core.domain.jobs.spec_forms import accepted_form

SPECS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("released_specs.json").read_text())
STAGED = {"num_sft_rows": 190, "num_train_pairs": 190, "device": "cpu", "fast_precision": "fp32"}


class LaterDpoSettings(DpoSettings):
    label_noise: float | job_spec.Auto = "auto"


class LaterSpec(JobSpec):
    """A version with one more setting of each kind."""

    dpo: Any = Field(default_factory=LaterDpoSettings)
    shuffle: bool = True


LATER_NAMES = {"LaterSpec": RELEASED_FIELDS["JobSpec"], "LaterDpoSettings": RELEASED_FIELDS["DpoSettings"]}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    known = presets.dpo
    for kind, names in LATER_NAMES.items():
        monkeypatch.setitem(RELEASED_FIELDS, kind, names)
    monkeypatch.setattr(presets, "dpo", lambda *args, **words: known(*args, **words) | {"label_noise": 0.25})


def later_spec(stored: dict[str, Any], **dpo: Any) -> LaterSpec:
    return LaterSpec.model_validate(stored | {"dpo": LaterDpoSettings.model_validate(stored["dpo"] | dpo)})


@pytest.mark.parametrize("stored", SPECS, ids=["plain", "lora", "kto"])
def test_a_stored_spec_loads_and_resolves(stored: dict[str, Any]) -> None:
    spec = resolve_staged(JobSpec.model_validate(stored), **STAGED)  # type: ignore[arg-type]
    stages = [stage for stage in (spec.sft, spec.dpo) if isinstance(stage, StageSettings)]
    assert "auto" not in [value for stage in stages for value in stage.model_dump().values()]
    left = {name for name, value in spec.model_dump().items() if value == "auto"}
    assert left <= {"artifact_dtype"}, "whose auto follows from lora and precision"


@pytest.mark.parametrize("stored", SPECS, ids=["plain", "lora", "kto"])
def test_what_is_stored_has_the_released_fields_alone(stored: dict[str, Any]) -> None:
    assert accepted_form(JobSpec.model_validate(stored)) == stored


@pytest.mark.usefixtures("later")
def test_a_later_auto_is_settled_for_jobs_that_were_queued_before_it() -> None:
    spec = later_spec(SPECS[0])
    assert spec.dpo.label_noise == "auto"
    values = spec.model_dump()
    job_spec._fill_stages(values)
    assert values["dpo"]["label_noise"] == 0.25


@pytest.mark.usefixtures("later")
def test_later_settings_are_stored_only_where_somebody_set_them() -> None:
    assert accepted_form(later_spec(SPECS[0], label_noise=0.25)) == SPECS[0], "auto, settled by the preset"
    used = accepted_form(later_spec(SPECS[0] | {"shuffle": False}, label_noise=0.5))
    assert (used["shuffle"], used["dpo"]["label_noise"]) == (False, 0.5)


def test_every_setting_beside_the_released_ones_has_a_default() -> None:
    for kind in (JobSpec, JobRequest, job_spec.SftSettings, DpoSettings, job_spec.LoraSettings, job_spec.EarlyStopping):
        released = RELEASED_FIELDS.get(kind.__name__, RELEASED_FIELDS["JobSpec"])
        later = kind.model_fields.keys() - released
        assert [name for name in later if kind.model_fields[name].is_required()] == []
        if kind is not JobRequest:
            assert released <= kind.model_fields.keys(), "a released setting stays readable"


def test_the_table_of_released_fields_is_closed() -> None:
    assert {name: len(fields) for name, fields in RELEASED_FIELDS.items()} == {
        "EarlyStoppingPlan": 3, "SftPlan": 11, "DpoPlan": 12, "LoraPlan": 4, "TrainingPlan": 26,
        "SftSettings": 9, "DpoSettings": 8, "LoraSettings": 4, "EarlyStopping": 3, "JobSpec": 30,
    }  # fmt: skip
