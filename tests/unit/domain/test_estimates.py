"""Work, speeds and memory of jobs: what estimates are computed from."""

import math
from dataclasses import replace
from typing import Any

import pytest

from core.domain.estimates.memory import MemoryModel
from core.domain.estimates.speeds import Interval, Measurement, ModelShape, Speeds
from core.domain.estimates.work import JobSizes, Packing, SplitSizes, Work, plan_work
from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request, resolve_staged

SHAPE = ModelShape(body_parameters=10_000_000, num_layers=4, hidden_size=256, vocabulary=1000)


def staged(num_rows: int, **settings: Any) -> JobSpec:
    request = JobRequest(base_model="tiny", dataset_id="ds_1", **settings)
    spec = resolve_request(request, num_parameters=11_000_000, num_pairs=num_rows, default_beta=0.1)
    return resolve_staged(spec, num_sft_rows=num_rows, num_train_pairs=num_rows, device="cpu", fast_precision="fp32")


def split(num_rows: int, prompt: int = 10, first: int = 20, second: int = 30) -> SplitSizes:
    return SplitSizes.measure([(prompt, first, second)] * num_rows)


def work(num_rows: int, response: int = 20, **settings: Any) -> Work:
    sizes = JobSizes(train=split(num_rows, first=response, second=response), validation=split(4))
    return plan_work(staged(num_rows, **settings), sizes)


def test_sizes_count_a_shared_prompt_once_and_a_short_one_twice() -> None:
    assert split(2).whole.tokens == 2 * (10 + 20 + 30)
    assert split(2).first.tokens == 2 * 30
    assert split(1, prompt=3).whole.tokens == 2 * 3 + 20 + 30


def test_work_names_each_pass_with_its_tokens_and_steps() -> None:
    spec = staged(40, sft={"epochs": 2, "batch_size": 8}, dpo={"epochs": 1, "batch_size": 4}, evaluate_every_steps=5)
    found = plan_work(spec, JobSizes(train=split(40), validation=split(4)))
    assert found.steps == {"sft": 10, "dpo": 10}
    assert found.stage_tokens() == {
        "sft": 2 * 40 * 30,
        "reference": 44 * 60,
        "dpo": 40 * 60 + 3 * 4 * 60,  # evaluated at steps 0 and 5, and at the end
        "evaluation": 40 * 60,
    }
    without_sft = plan_work(staged(40, sft="skip", variant="simpo"), JobSizes(train=split(40)))
    assert set(without_sft.stage_tokens()) == {"dpo", "evaluation"}


def test_packing_fills_micro_batches_and_leaves_long_rows_alone() -> None:
    assert Packing.of([10] * 8, 4, 20).per_batch == 2
    assert Packing.of([50] * 8, 4, 20) == Packing(per_batch=4, largest_tokens=50)


def took(done: Work, rate: float, per_batch: float = 0.0, scale: float = 1.0) -> Measurement:
    """A job on a machine with these rates, and ten seconds of start and publication."""
    laps: dict[str, float] = {"sft:start": 1.0, "reference:start": 1.0, "finish": 2.0}
    for item in done.passes:
        operations = SHAPE.operations(item.sizes) * (3 if item.is_training else 1)
        batches = item.micro_batches * (3 if item.is_training else 1)
        laps[item.lap] = scale * (operations * rate + batches * per_batch)
    return Measurement(
        shape=SHAPE,
        passes=done.passes,
        laps=laps,
        num_laps=dict.fromkeys(laps, 1),
        begin_tokens=0,
        answer_tokens=0,
        start_seconds=4.0,
        publish_seconds=2.0,
    )


def test_a_job_like_the_measured_one_is_foretold() -> None:
    done = work(64)
    measured = took(done, 1e-10, 0.01)
    found = Speeds.fit([measured])
    assert sum(found.stage_seconds(done).values()) == pytest.approx(measured.seconds, rel=0.02)
    interval = found.interval(done)
    assert interval.low < measured.seconds < interval.high <= 2 * interval.low


def test_larger_jobs_follow_from_two_smaller_ones_whatever_their_costs_come_from() -> None:
    for rate, per_batch in ((1e-9, 0.0), (1e-12, 0.05), (2e-10, 0.02)):
        found = Speeds.fit([took(work(n, response), rate, per_batch) for n, response in ((32, 20), (64, 60))])
        larger = work(400, 100)
        expected = took(larger, rate, per_batch).seconds
        assert sum(found.stage_seconds(larger).values()) == pytest.approx(expected, rel=0.25)


def test_the_interval_is_wider_for_jobs_unlike_the_measured_ones_and_never_beyond_twice() -> None:
    done = work(64)
    one = Speeds.fit([took(done, 1e-9)])
    many = Speeds.fit([took(done, 1e-9)] * 5)
    noisy = Speeds.fit([took(done, 1e-9, scale=scale) for scale in (1.0, 1.8, 0.6)])

    def width(interval: Interval) -> float:
        return interval.high / interval.low

    assert width(many.interval(done)) < width(one.interval(done)) < width(one.interval(work(512)))
    assert width(noisy.interval(done)) > width(many.interval(done))
    assert width(noisy.interval(work(5000, 200))) <= 2


def test_the_newest_measurements_count_most() -> None:
    done = work(64)
    busy_now = Speeds.fit([took(done, 1e-9, scale=2.0)] * 6 + [took(done, 1e-9)] * 6)
    quiet_now = Speeds.fit([took(done, 1e-9)] * 6 + [took(done, 1e-9, scale=2.0)] * 6)
    assert sum(busy_now.stage_seconds(done).values()) > 1.2 * sum(quiet_now.stage_seconds(done).values())


def test_what_is_taken_over_costs_nothing() -> None:
    done = work(256)
    found = Speeds.fit([took(done, 1e-9)])
    shared = found.stage_seconds(done.without({"sft", "reference"}))
    assert shared["sft"] == 0
    assert shared["reference"] == pytest.approx(1.0)  # the policy is loaded all the same
    assert shared["dpo"] == pytest.approx(found.stage_seconds(done)["dpo"])


def test_a_measurement_survives_json() -> None:
    measured = took(work(8), 1e-9)
    assert Measurement.from_values(measured.to_values() | {"of_a_later_version": 1}) == measured
    inside = measured.to_values()
    for values in (inside["shape"], *inside["passes"], *(item["sizes"] for item in inside["passes"])):
        values["of_a_later_version"] = 1
    assert Measurement.from_values(inside) == measured


MIB = 2**20


def footprint(tokens: int, peak: int, *, batches: int = 10, optimizer: str = "adamw") -> dict[str, Any]:
    """A job of a model that takes 400 MiB when it is loaded, 10 for the gradients and 20 for AdamW's states."""
    costs = {
        "optimizer_bytes": (30 if optimizer == "adamw" else 20) * MIB, "token_bytes": MIB / 10, "layer_token_bytes": 0,
        "score_bytes": 0, "scored_token_bytes": 0, "most_keys": 512,
    }  # fmt: skip
    done = {"is_training": True, "stage": "dpo", "micro_batch_tokens": tokens, "micro_batches": batches}
    return {
        "optimizer": optimizer,
        "times": {"passes": [done]},
        "memory": {
            "peak_bytes": peak * MIB,
            "lap_peaks": {"reference:start": 400 * MIB, "dpo:step": peak * MIB},
            "footprints": {"dpo": {"costs": costs, "rows": {"scored_share": 0.5, "longest": 100}}},
        },
    }


def largest(tokens: int, batches: int = 10) -> Work:
    found = work(8, sft="skip")
    passes = [
        replace(item, micro_batch_tokens=tokens, micro_batches=batches)
        for item in found.passes
        if item.lap == "dpo:step"
    ]
    return replace(found, passes=passes)


def peak(measured: list[dict[str, Any]], planned: Work, optimizer: str = "adamw") -> float:
    model = MemoryModel.fit(measured)
    assert model is not None
    return model.peak_bytes(planned, optimizer) / MIB


def test_one_job_gives_the_height_and_the_expected_bytes_of_a_token_the_slope() -> None:
    measured = [footprint(1000, 630)]
    assert peak(measured, largest(1000)) == pytest.approx(630)
    assert peak(measured, largest(2000)) == pytest.approx(730)
    assert peak(measured, largest(500)) == pytest.approx(580)


def test_a_job_without_sft_does_without_a_part_of_what_sft_left() -> None:
    measured = footprint(1000, 630)
    measured["times"]["passes"].append(measured["times"]["passes"][0] | {"stage": "sft"})
    measured["memory"]["lap_peaks"] |= {"sft:start": 300 * MIB}
    assert peak([measured], largest(1000)) == pytest.approx(630 - 0.3 * 100)
    assert peak([footprint(1000, 610), measured], largest(1000)) == pytest.approx(610), "its own kind goes first"


def test_what_saving_and_checking_took_beyond_training_does_not_grow_with_the_rows() -> None:
    measured = footprint(1000, 630)
    measured["memory"] |= {
        "peak_bytes": 930 * MIB,
        "lap_peaks": {**measured["memory"]["lap_peaks"], "evaluation:end": 630 * MIB},
    }
    assert peak([measured], largest(1000)) == pytest.approx(930)
    assert peak([measured], largest(2000)) == pytest.approx(1030)


def test_several_jobs_correct_the_line() -> None:
    measured = [footprint(1000, 700), footprint(3000, 900), footprint(5000, 1100)]
    assert peak(measured, largest(4000)) == pytest.approx(1000, rel=0.05)
    assert peak(measured, largest(2000)) == pytest.approx(800, rel=0.05)


def test_peak_memory_does_not_depend_on_the_number_of_micro_batches() -> None:
    assert peak([footprint(1000, 630, batches=10)], largest(1000, batches=500)) == pytest.approx(630)


def test_an_optimizer_with_fewer_states_takes_less() -> None:
    assert peak([footprint(1000, 630)], largest(1000), "rmsprop") == pytest.approx(620)


def test_a_job_without_measured_memory_says_nothing() -> None:
    values = footprint(1000, 600)
    values["memory"]["footprints"] = {}
    assert MemoryModel.fit([values]) is None


def test_what_is_left_of_an_interval_is_never_negative() -> None:
    assert Interval(low=10, high=20).after(15) == Interval(low=0, high=5)
    assert math.isclose(Interval(low=10, high=20).after(0).high, 20)


def test_a_supervised_job_has_no_stage_of_preferences() -> None:
    spec = staged(40, method="supervised", sft={"batch_size": 8}, evaluate_every_steps=5)
    found = plan_work(spec, JobSizes(train=split(40), validation=split(4)))
    assert found.steps == {"sft": 5}
    assert found.stage_tokens() == {"sft": 40 * 30 + 2 * 4 * 30}
    assert found.checkpoints.keys() == {"sft"}
