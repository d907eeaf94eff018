"""What a method of training means for a request and for the spec that is made of it."""

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request, resolve_staged
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import METHODS, MethodName, get_method, method_of, refused_settings
from core.domain.jobs.spec_forms import accepted_form, shown_form
from core.services.jobs.progress import StageState, estimate

LEAST = {"base_model": "tiny", "dataset_id": "ds_1"}
SUPERVISED = LEAST | {"method": "supervised"}
REWARD = LEAST | {"method": "reward"}


def refused(body: Mapping[str, Any]) -> dict[str, str]:
    request = JobRequest.model_validate(body)
    given = request.model_dump(mode="json", exclude_unset=True)
    return {error.pointer: error.detail for error in refused_settings(get_method(request.method), given)}


def accepted(body: Mapping[str, Any]) -> JobSpec:
    request = JobRequest.model_validate(body)
    return resolve_request(request, num_parameters=1_000_000, num_pairs=1000, default_beta=0.1)


def staged(spec: JobSpec) -> JobSpec:
    return resolve_staged(spec, num_sft_rows=200, num_train_pairs=900, device="cpu", fast_precision="fp32")


def test_requests_may_name_every_method_of_the_catalogue() -> None:
    assert set(get_args(MethodName)) == METHODS.keys()
    for method in METHODS.values():
        assert set(method.trained) < set(method.stages)
        assert list(method.stages) == [stage for stage in Stage if stage in method.stages], "in the order of a run"
        assert {place.split("/")[0] for place in method.unused} <= JobRequest.model_fields.keys()


@pytest.mark.parametrize(
    ("pointer", "setting"),
    [
        ("/variant", {"variant": "dpo"}),
        ("/beta", {"beta": 0.1}),
        ("/variant_options", {"variant_options": {"label_smoothing": 0.1}}),
        ("/dpo", {"dpo": {"epochs": 2}}),
        ("/score_training_pairs", {"score_training_pairs": True}),
        ("/sft/dataset_id", {"sft": {"dataset_id": "ds_2"}}),
        ("/sft", {"sft": "skip"}),
        ("/keep_best", {"keep_best": "rewards/margins"}),
        ("/early_stopping/metric", {"early_stopping": {"metric": "rewards/accuracies"}}),
    ],
)
def test_a_setting_without_a_meaning_is_refused_where_it_stands(pointer: str, setting: dict[str, Any]) -> None:
    assert list(refused(SUPERVISED | setting)) == [pointer]
    assert "supervised" in refused(SUPERVISED | setting)[pointer]
    assert refused(LEAST | setting) == {}, "it has one by default"


@pytest.mark.parametrize(
    ("pointer", "setting"),
    [
        ("/variant", {"variant": "dpo"}),
        ("/beta", {"beta": 0.1}),
        ("/variant_options", {"variant_options": {"label_smoothing": 0.1}}),
        ("/sft", {"sft": "skip"}),
        ("/sft", {"sft": {"dataset_id": "ds_2"}}),
        ("/dpo", {"dpo": {"epochs": 2}}),
        ("/sample_prompts", {"sample_prompts": ["Hello"]}),
        ("/keep_best", {"keep_best": "mean_token_accuracy"}),
    ],
)
def test_a_reward_model_has_settings_of_its_own(pointer: str, setting: dict[str, Any]) -> None:
    assert list(refused(REWARD | setting)) == [pointer]
    for other in (LEAST, SUPERVISED):
        assert list(refused(other | {"reward": {"epochs": 2}})) == ["/reward"]


def test_settings_with_a_meaning_pass() -> None:
    body = SUPERVISED | {
        "sft": {"epochs": 3},
        "lora": {},
        "keep_best": "mean_token_accuracy",
        "early_stopping": {"patience": 2},
        "variant": None,
        "beta": None,
    }
    assert refused(body) == {}
    assert list(refused(LEAST | {"keep_best": "mean_token_accuracy"})) == ["/keep_best"]


def test_the_spec_has_no_setting_without_a_meaning() -> None:
    spec = staged(accepted(SUPERVISED | {"sft": {"epochs": 2, "batch_size": 10}, "validation_fraction": 0.1}))
    form = accepted_form(spec)
    assert form == accepted_form(JobSpec.model_validate(form)), "what is stored is read back"
    assert not {"variant", "beta", "variant_options", "dpo", "score_training_pairs"} & form.keys()
    assert form["method"] == "supervised"
    assert (form["sft"]["epochs"], form["sft"]["warmup_steps"]) == (2, 4)
    assert "dataset_id" not in form["sft"]
    assert form["evaluate_every_steps"] == 4, "a tenth of the forty steps of SFT"
    assert "auto" not in [value for name, value in form.items() if name != "artifact_dtype"]
    assert shown_form(spec).keys() >= form.keys()
    assert not {"variant", "beta", "dpo"} & shown_form(spec).keys()


def test_the_spec_of_a_reward_model_is_read_back_without_sft() -> None:
    body = REWARD | {"reward": {"center_rewards_coefficient": 0.01}, "early_stopping": {"metric": "rewards/accuracies"}}
    spec = staged(accepted(body | {"score_training_pairs": False, "group_by_prompt": True}))
    form = accepted_form(spec)
    assert form == accepted_form(JobSpec.model_validate(form))
    assert not {"variant", "beta", "variant_options", "dpo", "sft", "sample_prompts"} & form.keys()
    assert form["reward"]["center_rewards_coefficient"] == 0.01
    assert (form["reward"]["epochs"], form["reward"]["learning_rate"]) == (1, 2e-5)
    assert form["reward"]["warmup_steps"] == 3, "a tenth of its 29 steps of 32 pairs"
    assert JobSpec.model_validate(form).sft == "skip"
    assert accepted(REWARD | {"lora": {}}).reward.learning_rate == 1e-4
    assert "reward" not in accepted_form(accepted(LEAST)), "workers of earlier versions read it"


def test_a_preference_spec_is_stored_without_its_method() -> None:
    form = accepted_form(accepted(LEAST))
    assert "method" not in form, "workers of earlier versions read it"
    assert method_of(form).name == "preference"
    assert shown_form(accepted(LEAST))["method"] == "preference"


@pytest.mark.parametrize(("body", "stage"), [(SUPERVISED, Stage.SFT), (REWARD, Stage.REWARD)])
def test_progress_counts_the_stages_of_the_method(body: Mapping[str, Any], stage: Stage) -> None:
    spec = accepted_form(staged(accepted(body)))
    half = {
        Stage.STAGING: StageState(fraction=1, elapsed_seconds=1),
        stage: StageState(fraction=0.5, elapsed_seconds=9),
    }
    found = estimate(spec, stage, half)
    assert 0.45 < found.fraction < 0.55
    assert found.eta_seconds is not None
    assert 8 < found.eta_seconds < 11
