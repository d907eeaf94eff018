"""Estimates in the terminal: of a job before it runs, and beside what it took."""

from typing import Any

from rich.text import Text

from preftune.cli.console import out
from preftune.cli.words import counted, ordinal

MIB = 2**20
_UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Seconds of a unit, its name, and those of the one below it."""


def print_estimate(estimate: dict[str, Any]) -> None:
    for line in estimate_texts(estimate):
        out.print(line, soft_wrap=True)


def estimate_texts(estimate: dict[str, Any]) -> list[Text]:
    """Return what a job would take, a line for each thing."""
    lines = [_line("rows", _rows(estimate))]
    if estimate["tokens"]:
        lines.append(_line("steps", _by_stage(estimate["steps"])))
        lines.append(_line("tokens", _by_stage(estimate["tokens"])))
    if estimate["reused_stages"]:
        taken = ", ".join(f"{stage} from {job}" for stage, job in estimate["reused_stages"].items())
        lines.append(_line("taken over", taken))
    lines += [line for worker in estimate["workers"] for line in _worker(worker)]
    if estimate["disk"]:
        disk = estimate["disk"]
        text = f"{_size(disk['checkpoint_bytes'])} of checkpoints, {_size(disk['artifact_bytes'])} published"
        lines.append(_line("disk", text))
    if estimate["reason"] and estimate["reason"] not in [worker["reason"] for worker in estimate["workers"]]:
        lines.append(_line("no time", estimate["reason"]))
    if queue := estimate.get("queue"):
        starts = queue["starts_in_seconds"]
        when = queue["reason"] if starts is None else _when(starts)
        lines.append(_line("queue", f"{ordinal(queue['position'])}; {when}"))
    return lines


def comparison_text(job: dict[str, Any]) -> Text | None:
    """Return the estimate beside what a finished job took; None where there is none."""
    estimate, actual = job.get("estimate"), job.get("actual")
    if not estimate or not actual or not estimate["seconds"]:
        return None
    text = Text("took", "bold").append(f" {duration(actual['seconds'])} ").append("estimated ", "dim")
    text.append(interval_text(estimate["seconds"]))
    if actual["peak_memory_bytes"] and estimate["peak_memory_bytes"]:
        text.append("  memory ", "dim").append(f"{_size(actual['peak_memory_bytes'])} ").append("estimated ", "dim")
        text.append(_size(estimate["peak_memory_bytes"]))
    return text


def duration(seconds: float) -> str:
    """Return a time in its two largest units: `5 h 51 min`."""
    whole = max(0, round(seconds))
    for unit, name, below, name_below in _UNITS:
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {name_below}"
    return f"{whole} s"


def _rows(estimate: dict[str, Any]) -> str:
    if estimate["num_train_rows"] is None:
        return "not counted"
    about = "" if estimate["is_exact"] else "about "
    text = f"{about}{estimate['num_train_rows']:,} to train on, {estimate['num_validation_rows']:,} held out"
    return text + (f", {estimate['num_set_aside']:,} set aside" if estimate["num_set_aside"] else "")


def _worker(worker: dict[str, Any]) -> list[Text]:
    name = f"{worker['num_workers']} x {worker['device_class']}"
    if worker["seconds"] is None:
        return [_line("worker", f"{name}: {worker['reason']}")]
    text = f"{name}: {interval_text(worker['seconds'])}, from {counted(worker['num_measured_jobs'], 'earlier job')}"
    lines = [_line("worker", text)]
    if worker["peak_memory_bytes"]:
        memory = _size(worker["peak_memory_bytes"])
        if worker["memory_bytes"]:
            memory += f" of {_size(worker['memory_bytes'])}" + ("" if worker["fits"] else ", more than it has")
        lines.append(_line("memory", memory))
    return lines


def _when(starts: dict[str, float]) -> str:
    return "starts at once" if not starts["high"] else f"starts in {interval_text(starts)}"


def interval_text(seconds: dict[str, float]) -> str:
    """Return the bounds of a time in words."""
    return f"{duration(seconds['low'])} to {duration(seconds['high'])}"


def _by_stage(numbers: dict[str, int]) -> str:
    return ", ".join(f"{stage} {number:,}" for stage, number in numbers.items())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / MIB:,.0f} MiB"


def _line(name: str, text: str) -> Text:
    return Text(f"{name:11}", "dim").append(text)
