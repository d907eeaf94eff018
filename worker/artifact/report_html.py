"""Report of a run: one HTML file that opens without a server and loads nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from core.domain.jobs.methods import method_of
from worker.artifact.summary_text import baseline_rows, drift_text, interval_text, result_rows, start_of

MAX_PAIRS = 20
"""Pairs shown for each flag."""
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#111827}
h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1rem 0}
td,th{border:1px solid #d1d5db;padding:.25rem .6rem;text-align:left;vertical-align:top}
pre{background:#f3f4f6;padding:.8rem;overflow:auto}td.text{white-space:pre-wrap}
"""
_FLAGS = {
    "likely_mislabelled": "Chosen and rejected may be the wrong way round: look at them first.",
    "never_learned": "The policy still prefers the rejected response.",
    "forgotten": "The policy once preferred the chosen response, and no longer does.",
    "already_satisfied": "The policy preferred the chosen response before it was trained on the pair.",
    "truncated": "Longer than max_length: it would have had to be cut, so it was set aside and not trained on.",
}


def html_report(record: Mapping[str, Any], curves: str, pairs: Iterable[Mapping[str, Any]]) -> str:
    """Return the report. `record` is `job.json`'s contents, `curves` an SVG picture, `pairs` `pairs.jsonl`'s lines."""
    spec = record["spec"]
    title = escape(str(spec.get("name") or record["job_id"]))
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
        _table(("setting", ""), _settings(record).items()),
        "<h2>Curves</h2>",
        curves,
        *_results(record.get("summary") or {}),
        *_held_out(record.get("summary") or {}, start_of(spec)),
        _table(("held-out metric at the end", ""), record["evaluation"].items()) if record["evaluation"] else "",
        *_samples(record.get("samples") or [], start_of(spec)),
        *_pairs(pairs),
        "<h2>Everything asked for</h2><pre>",
        escape(json.dumps(spec, indent=1, ensure_ascii=False)),
        "</pre></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    spec = record["spec"]
    return {
        "job": record["job_id"],
        "base model": spec["base_model"],
        "dataset": spec["dataset_id"],
        **({"variant": f"{spec['variant']}, beta {spec['beta']}"} if "variant" in spec else {}),
        "pairs" if method_of(spec).has_rewards else "rows": spec.get("num_pairs"),
        "device": record["device"],
        **record["versions"],
    }


def _results(summary: Mapping[str, Any]) -> Iterable[str]:
    if rows := result_rows(summary.get("results")):
        yield "<h2>Results</h2>"
        yield _table(("figure, with its 95 % interval", ""), rows.items())


def _held_out(summary: Mapping[str, Any], start: str) -> Iterable[str]:
    held_out = summary.get("held_out")
    if held_out:
        yield f"<h2>{held_out['num_pairs']} held-out pairs</h2><p>Reward accuracy with its 95 % bootstrap interval.</p>"
        rows = {"this model": interval_text(held_out["reward_accuracy"]), **baseline_rows(held_out)}
        yield _table(("judge", "share of pairs judged as labelled"), rows.items())
    if drift := drift_text(summary.get("drift"), start):
        yield f"<p>{escape(drift)}</p>"


def _samples(samples: Sequence[Mapping[str, Any]], start: str) -> Iterable[str]:
    if samples:
        yield "<h2>Before and after</h2>"
        rows = [(item["prompt"], item["reference"], item["policy"]) for item in samples]
        yield _table(("prompt", start, "policy"), rows)


def _pairs(pairs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    found: dict[str, list[Mapping[str, Any]]] = {flag: [] for flag in _FLAGS}
    counts = dict.fromkeys(_FLAGS, 0)
    for pair in pairs:
        for flag in pair.get("flags", ()):
            if flag in counts:
                counts[flag] += 1
                found[flag].append(pair)
                found[flag] = sorted(found[flag], key=_margin)[:MAX_PAIRS] if counts[flag] > MAX_PAIRS else found[flag]
    if any(counts.values()):
        yield "<h2>Pairs to look at</h2>"
    for flag, meaning in _FLAGS.items():
        if counts[flag]:
            yield f"<h3>{flag}: {counts[flag]}</h3><p>{escape(meaning)}</p>"
            rows = [(pair["line"], pair["split"], pair["margin_last"]) for pair in found[flag][:MAX_PAIRS]]
            yield _table(("line of the file", "split", "reward margin"), rows)


def _margin(pair: Mapping[str, Any]) -> float:
    return float(pair["margin_last"]) if pair["margin_last"] is not None else 0.0


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = ["<tr>", *(f"<th>{escape(name)}</th>" for name in head), "</tr>"]
    for row in rows:
        cells += ["<tr>", *(f'<td class="text">{escape(_text(value))}</td>' for value in row), "</tr>"]
    return f"<table>{''.join(cells)}</table>"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
