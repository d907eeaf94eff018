"""What a job holds out, and what it says of it: whole prompts, recorded; prompts of both datasets, warned of."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_tiny_tokenizer

from core.domain.jobs.job_spec import JobRequest, JobSpec, resolve_request
from core.domain.trainer_protocol import Assignment, TrainerEvent
from core.tokenization.errors import NothingToEncode
from core.tokenization.pair_tokenizer import PairTokenizer
from core.training.data.encoded import EncodedData
from worker.processes.trainer.inputs import EncodedInputs, InputEncoder

Row = dict[str, Any]


class RecordingLink:
    """What the trainer tells its supervisor."""

    stop_mode = None

    def __init__(self) -> None:
        self.events: list[TrainerEvent] = []

    def send(self, message: Any) -> None:
        if isinstance(message, TrainerEvent):
            self.events.append(message)

    def of(self, kind: str) -> list[TrainerEvent]:
        return [event for event in self.events if event.kind == kind]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PairTokenizer:
    return PairTokenizer.open(write_tiny_tokenizer(tmp_path_factory.mktemp("model")))


def make_rows(numbers: range, per_prompt: int = 2) -> list[Row]:
    return [
        {"line": n + 1, "prompt": f"Question {n // per_prompt}?", "chosen": f"good {n}", "rejected": f"bad {n}"}
        for n in numbers
    ]


def spec_of(num_pairs: int, **fields: Any) -> JobSpec:
    request = JobRequest.model_validate({"base_model": "tiny", "dataset_id": "ds_1"} | fields)
    return resolve_request(request, num_parameters=1000, num_pairs=num_pairs, default_beta=0.1)


def encode(
    folder: Path, tokenizer: PairTokenizer, rows: list[Row], validation: list[Row] | None = None, **fields: Any
) -> tuple[EncodedInputs, RecordingLink]:
    paths = {}
    for name, content in (("rows", rows), ("validation_rows", validation)):
        if content is not None:
            paths[name] = str(folder / name)
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    resume_from = fields.pop("resume_from", None)
    if validation is not None:
        fields["validation_dataset_id"] = "ds_2"
    spec = spec_of(len(rows), **fields)
    link = RecordingLink()
    assignment = Assignment(job_id="job_1", attempt=1, spec={}, base_model_dir="", resume_from=resume_from, **paths)
    encoder = InputEncoder(
        link=link,  # type: ignore[arg-type]
        assignment=assignment,
        work_dir=folder,
        tokenizer=tokenizer,
        spec=spec,
    )
    return encoder.encode(), link


def test_a_split_is_recorded_with_its_lines(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    inputs, link = encode(tmp_path, tokenizer, make_rows(range(100)), validation_fraction=0.1, seed=3)
    assert inputs.validation is not None
    assert (inputs.train.num_rows, inputs.validation.num_rows) == (90, 10)
    (event,) = link.of("validation_split")
    assert event.level == "info"
    data = event.data
    assert (data["num_train"], data["num_validation"], data["num_validation_prompts"]) == (90, 10, 5)
    assert (data["fraction"], data["seed"]) == (0.1, 3)
    held_out = [json.loads(line)["line"] for line in (tmp_path / "held-out.jsonl").open()]
    assert data["validation_lines"] == held_out
    assert "10 of 100 rows" in event.message


@pytest.mark.parametrize(
    ("num_rows", "per_prompt", "fraction", "message"),
    [
        (1, 1, 0.05, "No row is held out for validation: 1 row of too few prompts to hold one out."),
        (4, 1, 0.25, "1 of 4 rows is held out for validation: all rows of 1 prompt."),
        (8, 2, 0.25, "2 of 8 rows are held out for validation: all rows of 1 prompt."),
        (40, 2, 0.25, "10 of 40 rows are held out for validation: all rows of 5 prompts."),
    ],
)
def test_the_split_is_told_in_singular_and_plural(
    tmp_path: Path, tokenizer: PairTokenizer, num_rows: int, per_prompt: int, fraction: float, message: str
) -> None:
    _, link = encode(tmp_path, tokenizer, make_rows(range(num_rows), per_prompt), validation_fraction=fraction)
    assert [event.message for event in link.of("validation_split")] == [message]


def test_an_attempt_that_goes_on_splits_alike_and_is_silent(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    rows = make_rows(range(60))
    encode(tmp_path / "first", tokenizer, rows, validation_fraction=0.2)
    _, link = encode(tmp_path / "second", tokenizer, rows, validation_fraction=0.2, resume_from="checkpoint")
    assert link.events == []
    assert (tmp_path / "first" / "held-out.jsonl").read_bytes() == (tmp_path / "second" / "held-out.jsonl").read_bytes()


def test_a_leaked_validation_prompt_is_told_with_its_lines(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    validation = make_rows(range(100, 120))
    leaked = {**validation[4], "line": 51, "prompt": validation[4]["prompt"].upper()}
    inputs, link = encode(tmp_path, tokenizer, [*make_rows(range(50)), leaked], validation)
    assert inputs.validation is not None
    assert (inputs.train.num_rows, inputs.validation.num_rows) == (51, 20)
    (event,) = link.of("shared_prompts")
    assert event.level == "warning"
    assert event.data == {"num_prompts": 1, "num_rows": 1, "lines": [51]}
    assert "line 51" in event.message
    assert link.of("validation_split") == []


def test_without_a_leak_nothing_is_told(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    _, link = encode(tmp_path, tokenizer, make_rows(range(50)), make_rows(range(100, 120)))
    assert link.events == []


def test_a_supervised_job_sees_the_same_in_every_kind_of_data(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    """Chosen responses, those marked good, or the only ones: the same tokens, the same rows held out."""
    pairs = make_rows(range(8), per_prompt=1)
    good = [{"line": row["line"], "prompt": row["prompt"], "response": row["chosen"]} for row in pairs]
    bad = {"line": 9, "prompt": "Question 1?", "response": "bad", "label": False}
    kinds = {"pairs": pairs, "demonstrations": good, "marked": [*(row | {"label": True} for row in good), bad]}
    digests = set()
    for name, rows in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        inputs, _ = encode(folder, tokenizer, rows, method="supervised", validation_fraction=0.25)
        assert inputs.validation is not None
        opened = [EncodedData.open(split.directory) for split in (inputs.train, inputs.validation)]
        assert [(data.kind, len(data)) for data in opened] == [("demonstration", 6), ("demonstration", 2)]
        digests.add(tuple(data.digest for data in opened))
    assert len(digests) == 1


def test_without_a_good_response_there_is_nothing_to_learn(tmp_path: Path, tokenizer: PairTokenizer) -> None:
    bad = [{"line": 1, "prompt": "Question?", "response": "bad", "label": False}]
    with pytest.raises(NothingToEncode, match="No response is marked good"):
        encode(tmp_path, tokenizer, bad, method="supervised")
