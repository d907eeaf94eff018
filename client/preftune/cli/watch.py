"""Live view of a job in the terminal: stages, curves and the doctor's findings, until it ends.

Survives a service that goes away for a while, and starts its curves over when the service says that an attempt was
rewound.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from preftune import Client
from preftune.cli.curves import plot
from preftune.cli.estimates import comparison_text, duration
from preftune.cli.patience import patiently
from preftune.cli.words import counted, ordinal

FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})
EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
STAGES = ("staging", "sft", "reference", "dpo", "reward", "evaluation", "publishing")
TRAINED = ("reward", "dpo", "sft")
"""Stages with curves, the last of a job first."""
PLOT_WIDTH = 56
PLOT_HEIGHT = 6
MIN_PLOT_HEIGHT = 2
LEGEND_LINES = 2
PLOTS = (("loss",), ("rewards/chosen", "rewards/rejected", "rewards/margins"))
"""Curves that share a frame."""
MAX_CURVE_POINTS = 2000
MAX_FINDINGS = 5
SHOWN_VALUES = (
    ("loss", "loss", ".4f"),
    ("rewards/chosen", "rewards/chosen", "+.3f"),
    ("rewards/rejected", "rewards/rejected", "+.3f"),
    ("rewards/margins", "margin", "+.3f"),
    ("rewards/accuracies", "accuracy", ".1%"),
    ("rewards/calibration_error", "calibration error", ".1%"),
    ("mean_token_accuracy", "token accuracy", ".1%"),
    ("tokens_per_second", "tokens/s", ",.0f"),
)


RESULTS = (
    ("reward_accuracy", "accuracy", ".1%"),
    ("reward_margin", "margin", "+.3f"),
    ("loss", "loss", ".4f"),
    ("perplexity", "perplexity", ".4g"),
    ("token_accuracy", "token accuracy", ".1%"),
)


@dataclass
class JobView:
    """Known state of a job: its newest object, its points and its events."""

    job: dict[str, Any]
    last_seq: int = 0
    last_event_seq: int = 0
    latest: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    curves: dict[tuple[str, str], deque[tuple[float, float]]] = field(default_factory=dict)
    """(step, value) by stage and name."""
    findings: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_FINDINGS))
    """What the doctor said."""
    new_events: list[dict[str, Any]] = field(default_factory=list)

    def refresh(self, client: Client) -> None:
        job_id = self.job["id"]
        self.job = client.jobs.get(job_id)
        page = client.jobs.metrics(job_id, after=self.last_seq)
        if page["reset"]:
            self.latest.clear()
            self.curves.clear()
        for point in page["points"]:
            self._add(point)
        self.last_seq = page["last_seq"]
        events = client.jobs.events(job_id, after=self.last_event_seq)
        if events:
            self.last_event_seq = events[-1]["seq"]
        self.findings += [event for event in events if event["kind"] == "doctor"]
        self.new_events = events

    def _add(self, point: dict[str, Any]) -> None:
        self.latest[(point["stage"], point["split"])] = point
        if point["split"] != "train":
            return
        for name in (name for frame in PLOTS for name in frame):
            value = point["values"].get(name)
            if value is not None:
                curve = self.curves.setdefault((point["stage"], name), deque(maxlen=MAX_CURVE_POINTS))
                curve.append((point["step"], value))

    @property
    def is_final(self) -> bool:
        return self.job["status"] in FINAL_STATUSES


def watch_job(client: Client, job_id: str, console: Console, *, poll_seconds: float = 1.0) -> dict[str, Any]:
    """Show the job until it has ended; return it. Raises ConnectionFailed after ten minutes without an answer."""
    view = JobView(client.jobs.get(job_id))
    if not console.is_terminal:
        return _watch_plainly(client, view, console, poll_seconds)
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            patiently(lambda: view.refresh(client), console, poll_seconds)
            for event in view.new_events:
                live.console.print(_event_text(event))
            live.update(render(view, console))
            if view.is_final:
                return view.job
            time.sleep(poll_seconds)


def _watch_plainly(client: Client, view: JobView, console: Console, poll_seconds: float) -> dict[str, Any]:
    """Print one line per event and, every few seconds at most, the newest point: for logs and pipes."""
    shown_at, shown_seq = 0.0, -1
    while True:
        patiently(lambda: view.refresh(client), console, poll_seconds)
        for event in view.new_events:
            console.print(_event_text(event), soft_wrap=True)
        due = view.is_final or time.monotonic() - shown_at >= 5
        if due and view.last_seq != shown_seq:
            console.print(_status_text(view), soft_wrap=True)
            shown_at, shown_seq = time.monotonic(), view.last_seq
        if view.is_final:
            return view.job
        time.sleep(poll_seconds)


def render(view: JobView, console: Console) -> RenderableType:
    """Return the whole view: headline, a bar for each stage, the newest values, the doctor's findings, and curves.

    Curves fill the room that the terminal has left.
    """
    parts: list[RenderableType] = [_headline(view), _stage_table(view)]
    results = result_texts(view.job)
    if results:
        parts += results
    else:
        parts += [_value_line(point) for point in _newest_points(view)]
    parts += [_finding_text(finding) for finding in view.findings]
    num_lines = len(console.render_lines(Group(*parts), pad=False))
    return Group(*parts, *_plots(view, min(PLOT_WIDTH, console.width - 24), console.height - 1 - num_lines))


def _newest_points(view: JobView) -> list[dict[str, Any]]:
    """Return the newest held-out point, which says most, and the newest training batch."""
    found = [[view.latest.get((stage, split)) for stage in TRAINED] for split in ("validation", "train")]
    return [point for points in found if (point := next(filter(None, points), None))]


def result_texts(job: dict[str, Any]) -> list[Text]:
    """Return what an ended job's policy is like: held-out figures with their intervals, training means below."""
    results = job.get("results") or {}
    texts, training = [], results.get("training")
    for part, title in (("held_out", "held-out, {rows}"), ("base_model", "base model on them")):
        if figures := results.get(part):
            text = Text(title.format(rows=counted(figures["num_rows"], "row")), "bold")
            for name, label, form in (known for known in RESULTS if figures.get(known[0])):
                text.append(f"  {label} ", "dim").append(_figure_text(figures[name], form))
            texts.append(text)
    if training:
        which = f"epoch {training['epoch']}" if training["is_whole_epoch"] else "epoch 1 as far as it went"
        text = Text(f"training, mean over {which}", "bold")
        for name, label, form in RESULTS:
            if training.get(name) is not None:
                text.append(f"  {label} ", "dim").append(format(training[name], form))
        texts.append(text)
    if (comparison := comparison_text(job)) is not None:
        texts.append(comparison)
    return texts


def _figure_text(figure: dict[str, Any], form: str) -> str:
    if figure["value"] is None:
        return "not finite"
    interval = f" ({figure['low']:{form}} to {figure['high']:{form}})" if figure["low"] is not None else ""
    return f"{figure['value']:{form}}{interval}"


def _plots(view: JobView, width: int, num_lines: int) -> list[RenderableType]:
    """Return as many charts as fit into so many lines, as high as possible."""
    stage = next((stage for stage in TRAINED if (stage, "loss") in view.curves), "sft")
    frames = [{name: list(view.curves.get((stage, name), ())) for name in frame} for frame in PLOTS]
    frames = [curves for curves in frames if any(len(curve) > 1 for curve in curves.values())]
    while frames:
        height = min(PLOT_HEIGHT, num_lines // len(frames) - LEGEND_LINES)
        if height >= MIN_PLOT_HEIGHT and width > 0:
            return [plot(curves, width, height) for curves in frames]
        frames.pop(0)
    return []


def _finding_text(event: dict[str, Any]) -> Text:
    data = event["data"]
    style = {"warning": "yellow", "error": "red"}.get(event["level"], "cyan")
    return Text.assemble((f"doctor: {data['message']}", f"bold {style}"), f" {data['advice']}")


def _headline(view: JobView) -> Text:
    job, progress = view.job, view.job["progress"] or {}
    text = Text.assemble(("job ", "dim"), (job["id"], "bold"), "  ", (job["status"], _status_style(job["status"])))
    if job["status"] == "queued" and job["queue_position"] is not None:
        text.append(f"  {ordinal(job['queue_position'])} in the queue")
    if progress.get("eta_seconds") is not None and not view.is_final:
        text.append(f"  about {duration(progress['eta_seconds'])} left")
    return text


def _stage_table(view: JobView) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    rows = {row["name"]: row for row in view.job["stages"]}
    progress = view.job["progress"] or {}
    for name in STAGES:
        row = rows.get(name, {"status": "pending", "steps": None, "reused_from": None})
        total = progress.get("total_steps") if progress.get("stage") == name else None
        is_done = row["status"] in ("finished", "reused", "skipped")
        completed = 1.0 if is_done else (progress.get("step", 0) / total if total else 0.0)
        bar = ProgressBar(total=1.0, completed=completed, width=32)
        count = f"{progress['step']}/{total}" if total and not is_done else (str(row["steps"]) if row["steps"] else "")
        note = f"reused from {row['reused_from']}" if row["reused_from"] else row["status"]
        table.add_row(Text(name), bar, Text(count), Text(note, "dim"))
    return table


def _value_line(point: dict[str, Any]) -> Text:
    what = "batch of" if point["split"] == "train" else "held-out rows at"
    text = Text(f"{point['stage']} {what} step {point['step']}", "bold")
    for name, label, form in SHOWN_VALUES:
        value = point["values"].get(name)
        if value is not None:
            text.append(f"  {label} ", "dim")
            text.append(format(value, form))
    return text


def _status_text(view: JobView) -> Text:
    text = Text(f"{view.job['status']} {view.job['stage'] or ''}".strip())
    lines = result_texts(view.job) or [_value_line(point) for point in _newest_points(view)[-1:]]
    return text.append("  ").append_text(Text("; ").join(lines)) if lines else text


def _event_text(event: dict[str, Any]) -> Text:
    style = {"warning": "yellow", "error": "red"}.get(event["level"], "dim")
    return Text(f"{event['at'][11:19]} {event['message']}", style)


def _status_style(status: str) -> str:
    return {"succeeded": "green", "failed": "red", "cancelled": "yellow", "paused": "yellow"}.get(status, "cyan")
