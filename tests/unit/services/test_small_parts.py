"""Ids, cursors, object keys, estimates of progress, back-off."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.errors import InvalidRequest
from core.domain.jobs.job_state import Stage
from core.domain.jobs.methods import get_method
from core.services.attempts.requeue import backoff_seconds
from core.services.cursors import decode_cursor, decode_offset, encode_cursor
from core.services.ids import new_id, new_suffix
from core.services.jobs.progress import StageState, estimate, stage_weights
from core.settings import Settings
from core.storage import keys

SPEC = {"sft": {"epochs": 1}, "dpo": {"epochs": 2}, "validation_fraction": 0.05}


def test_ids_sort_by_age_and_never_repeat() -> None:
    made = [new_suffix() for _ in range(2000)]
    assert made == sorted(set(made))
    time.sleep(0.002)
    assert new_suffix() > made[-1]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: new_id("job"), range(2000)))
    assert len(set(found)) == 2000
    assert all(len(job_id) == 30 and job_id.startswith("job_") for job_id in found)


@given(st.text("abcxyz0189_-.@é ", max_size=50))
def test_cursors_come_back(value: str) -> None:
    assert decode_cursor(encode_cursor(value)) == value


@pytest.mark.parametrize("cursor", ["é", "=", "a", "//", "gA", "a b", "-_-_-"])
def test_forged_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor(cursor)


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "٣", "9" * 19])
def test_forged_offsets_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_offset(encode_cursor(value))


def test_offsets() -> None:
    assert decode_offset(None) == 0
    assert decode_offset(encode_cursor("12")) == 12


def test_a_prefix_owns_its_objects_and_knows_its_owner() -> None:
    prefixes = [
        keys.dataset_prefix("p", "ds_1"),
        keys.checkpoint_prefix("p", "job_1", 3, "dpo", 40),
        keys.stage_output_prefix("p", "job_1", 3, "d" * 64),
        keys.artifact_prefix("p", "job_1", 3),
    ]
    for prefix in prefixes:
        assert keys.owning_prefix(prefix + "manifest.json") == prefix
    assert keys.owning_prefix(prefixes[3] + "adapter/config.json") == prefixes[3]
    assert keys.owner_of(prefixes[0]) == keys.Owner(dataset_id="ds_1")
    assert {keys.owner_of(prefix) for prefix in prefixes[1:]} == {keys.Owner(job_id="job_1", attempt=3)}


@pytest.mark.parametrize(
    "key", ["x", "projects/p/other/o/k", "projects/p/jobs/j/attempt/artifact/f", "projects/p/jobs/j/a1/artifact"]
)
def test_objects_of_another_layout_have_no_owner(key: str) -> None:
    assert keys.owning_prefix(key) is None


def test_a_job_that_has_not_begun_is_at_zero() -> None:
    assert estimate(SPEC, None, {}).fraction == 0.0
    assert estimate(SPEC, None, {}).eta_seconds is None


def test_the_fraction_grows_stage_by_stage_to_one() -> None:
    states: dict[Stage, StageState] = {}
    seen = [0.0]
    for stage in get_method("preference").stages:
        states[stage] = StageState(fraction=1.0, elapsed_seconds=1.0)
        seen.append(estimate(SPEC, stage, states).fraction)
    assert seen == sorted(set(seen))
    assert seen[-1] == pytest.approx(1.0)


def test_the_time_left_follows_the_pace_of_the_stage() -> None:
    weights = stage_weights(SPEC)
    done = {
        stage: StageState(fraction=1.0, elapsed_seconds=1.0) for stage in (Stage.STAGING, Stage.SFT, Stage.REFERENCE)
    }
    half = done | {Stage.DPO: StageState(fraction=0.5, elapsed_seconds=60.0)}
    pace = 60.0 / (weights[Stage.DPO] / 2)
    left = weights[Stage.DPO] / 2 + weights[Stage.EVALUATION] + weights[Stage.PUBLISHING]
    assert estimate(SPEC, Stage.DPO, half).eta_seconds == pytest.approx(left * pace)


def test_skipped_stages_cost_nothing() -> None:
    spec = SPEC | {"sft": "skip"}
    assert stage_weights(spec)[Stage.SFT] == 0.0
    reused = {Stage.SFT: StageState(fraction=1.0, elapsed_seconds=0.0, is_left_out=True)}
    assert estimate(SPEC, Stage.SFT, reused).fraction == 0.0


def test_back_off_doubles_and_scales_with_the_lease() -> None:
    assert [backoff_seconds(Settings(), crashes) for crashes in range(3)] == [30.0, 60.0, 120.0]
    assert backoff_seconds(Settings(lease_seconds=2, heartbeat_seconds=0.2), 0) == 1.0
