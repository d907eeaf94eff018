"""Encoding of rows to token ids: held-out pairs split off, unsuitable rows set aside and reported."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from core.datasets.editing import as_demonstrations, edit_rows
from core.datasets.splitting import SplitCounts, find_shared_prompts, split_validation
from core.disk_space import room_for
from core.domain.dataset_rows import DatasetKind
from core.domain.jobs.event_kinds import PAIRS_SET_ASIDE, SHARED_PROMPTS, VALIDATION_SPLIT
from core.domain.jobs.job_spec import JobSpec
from core.domain.jobs.methods import get_method
from core.domain.set_aside import SetAsideReason, describe
from core.domain.trainer_protocol import Assignment, Progress, TrainerEvent
from core.tokenization.encode_file import EncodeSummary, encode_file
from core.tokenization.errors import NothingToEncode
from core.tokenization.pair_tokenizer import PairTokenizer
from core.wording import counted
from worker.processes.trainer.supervisor_link import SupervisorLink

MAX_REPORTED_LINES = 100
_PROGRESS_SECONDS = 0.5


class StoppedWhileStaging(Exception):
    """Raised when the supervisor asked to stop before training began."""


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    directory: Path
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    train: EncodedSplit
    validation: EncodedSplit | None
    sft: EncodedSplit | None
    """Demonstrations; None: SFT takes the chosen responses."""


@dataclass(kw_only=True)
class InputEncoder:
    link: SupervisorLink
    assignment: Assignment
    work_dir: Path
    tokenizer: PairTokenizer
    spec: JobSpec
    _set_aside: dict[str, EncodeSummary] = field(default_factory=dict, init=False)
    _told_at: float = field(default=0.0, init=False)

    @property
    def too_long(self) -> Iterator[tuple[str, int]]:
        """Return (split, line) of rows that would have had to be cut; only the first ones of many."""
        for name in ("train", "validation"):
            if name in self._set_aside:
                rows = self._set_aside[name].set_aside
                yield from ((name, row.line) for row in rows if row.reason is SetAsideReason.TOO_LONG)

    @room_for("the tokenised rows")
    def encode(self) -> EncodedInputs:
        """Encode all inputs. Raises StoppedWhileStaging, and what `core.tokenization` raises."""
        assignment = self.assignment
        train_rows, validation_rows = self._split()
        train = self._encode("train", train_rows, self._kind)
        validation = None
        if validation_rows is not None and validation_rows.stat().st_size:
            validation = self._encode_validation(validation_rows)
        sft = None
        if assignment.sft_rows is not None:
            sft = self._encode("sft", Path(assignment.sft_rows), DatasetKind.DEMONSTRATION)
        if assignment.resume_from is None:
            self._report_set_aside()
        return EncodedInputs(train=train, validation=validation, sft=sft)

    @property
    def _kind(self) -> DatasetKind:
        return get_method(self.spec.method).encoded_kind_for(self.spec.variant)

    def _split(self) -> tuple[Path, Path | None]:
        rows = self._demonstrations(self._edited_rows(), "train")
        if self.assignment.validation_rows is not None:
            validation = self._demonstrations(Path(self.assignment.validation_rows), "validation")
            self._warn_of_shared_prompts(rows, validation)
            return rows, validation
        if not self.spec.validation_fraction:
            return rows, None
        train, validation = self.work_dir / "train.jsonl", self.work_dir / "held-out.jsonl"
        counts = split_validation(rows, self.spec.validation_fraction, self.spec.seed, train, validation)
        self._record_split(counts)
        return train, validation

    def _record_split(self, counts: SplitCounts) -> None:
        """Report the split, which is determined by rows, fraction and seed, in an event."""
        total = counted(counts.num_train + counts.num_validation, "row")
        if counts.num_validation:
            verb = "is" if counts.num_validation == 1 else "are"
            prompts = counted(counts.num_validation_prompts, "prompt")
            message = f"{counts.num_validation:,} of {total} {verb} held out for validation: all rows of {prompts}."
        else:
            message = f"No row is held out for validation: {total} of too few prompts to hold one out."
        data = {"fraction": self.spec.validation_fraction, "seed": self.spec.seed, **asdict(counts)}
        self._tell_once(TrainerEvent(level="info", kind=VALIDATION_SPLIT, message=message, data=data))

    def _edited_rows(self) -> Path:
        """Return rows with lines left out or swapped. Raises UnknownLines, NothingToEncode."""
        rows, spec = Path(self.assignment.rows), self.spec
        if not (spec.exclude_lines or spec.swap_lines):
            return rows
        edited = self.work_dir / "edited.jsonl"
        if not edit_rows(rows, edited, exclude_lines=spec.exclude_lines, swap_lines=spec.swap_lines):
            raise NothingToEncode("All rows are left out by exclude_lines.")
        return edited

    def _demonstrations(self, rows: Path, name: str) -> Path:
        """Return the rows as demonstrations where the method trains on such. Raises NothingToEncode."""
        if get_method(self.spec.method).encoded_kind is not DatasetKind.DEMONSTRATION:
            return rows
        target = self.work_dir / f"{name}-demonstrations.jsonl"
        if not as_demonstrations(rows, target):
            raise NothingToEncode("No response is marked good, so there is nothing to learn from.")
        return target

    def _warn_of_shared_prompts(self, rows: Path, validation: Path) -> None:
        shared = find_shared_prompts(rows, validation)
        if shared.num_prompts:
            verb = "is" if shared.num_prompts == 1 else "are"
            places = f"{counted(shared.num_rows, 'row')}, the first on line {shared.lines[0]}"
            message = (
                f"{counted(shared.num_prompts, 'prompt')} of the validation dataset {verb} trained on too ({places}): "
                "what is measured on them is no held-out result. Remove those rows from one of the two files."
            )
            event = TrainerEvent(level="warning", kind=SHARED_PROMPTS, message=message, data=asdict(shared))
            self._tell_once(event)

    def _tell_once(self, event: TrainerEvent) -> None:
        """Send an event, but not again in an attempt that resumes another."""
        if self.assignment.resume_from is None:
            self.link.send(event)

    def _encode(self, name: str, rows: Path, kind: DatasetKind) -> EncodedSplit:
        directory = self.work_dir / "encoded" / name
        summary = encode_file(
            rows,
            self.tokenizer,
            directory,
            kind=kind,
            max_length=self.spec.max_length,
            on_progress=self._progress,
            num_processes=None if self.assignment.num_threads > 1 else 1,
        )
        if summary.num_set_aside:
            self._set_aside[name] = summary
        return EncodedSplit(directory=directory, num_rows=summary.num_rows)

    def _encode_validation(self, rows: Path) -> EncodedSplit | None:
        try:
            return self._encode("validation", rows, self._kind)
        except NothingToEncode as error:
            message = f"No held-out pair can be used, so nothing is measured on them. {error.detail}"
            self.link.send(TrainerEvent(level="warning", kind="no_validation", message=message))
            return None

    def _progress(self, num_done: int) -> None:
        if self.link.stop_mode is not None:
            raise StoppedWhileStaging
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            self.link.send(Progress(stage="staging", step=num_done, total_steps=self.spec.num_pairs))

    def _report_set_aside(self) -> None:
        """Send one event for all splits with bounded lists."""
        if not self._set_aside:
            return
        count = sum(summary.num_set_aside for summary in self._set_aside.values())
        first = next(row for summary in self._set_aside.values() for row in summary.set_aside)
        counts = sum((Counter(summary.set_aside_counts) for summary in self._set_aside.values()), Counter())
        message = (
            f"{counted(count, 'row')} {'is' if count == 1 else 'are'} not trained on ({describe(counts)}); the first "
            f"is line {first.line}: {first.detail}"
        )
        data = {"count": count, "counts": dict(counts)} | {
            name: {
                "count": summary.num_set_aside,
                "counts": summary.set_aside_counts,
                "rows": [asdict(row) for row in summary.set_aside[:MAX_REPORTED_LINES]],
            }
            for name, summary in self._set_aside.items()
        }
        self.link.send(TrainerEvent(level="warning", kind=PAIRS_SET_ASIDE, message=message, data=data))


def open_tokenizer(assignment: Assignment, spec: JobSpec) -> PairTokenizer:
    """Open the tokenizer with the job's own time, so that templates with a date give equal ids in every attempt."""
    submitted = assignment.submitted_at
    now = datetime.fromisoformat(submitted).replace(tzinfo=None) if submitted else None
    return PairTokenizer.open(
        Path(assignment.base_model_dir),
        now=now,
        template_kwargs=spec.chat_template_kwargs,
        keeps_tail=not get_method(spec.method).publishes_policy,
    )
