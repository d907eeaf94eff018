"""The results of `bench_train.py` as a table on the screen and as a page."""

import statistics
from pathlib import Path
from typing import Any

CONTENDERS = ("trl-default", "trl-best", "trl-malloc", "trl-single", "earlier", "preftune")


def in_order(runs: dict[str, Any]) -> dict[str, Any]:
    return {name: runs[name] for name in CONTENDERS if name in runs}


def summarise(entry: dict[str, Any], precision: str, threads: int) -> dict[str, Any]:
    """Medians over the rounds of every contender, and ratios to this engine's."""
    results = {name: rounds for name, rounds in in_order(entry["runs"]).items() if rounds}
    whole = entry["pairs"]
    tokens = next((r[0]["tokens"] for r in results.values() if "tokens" in r[0]), None)
    summary = {}
    for name, rounds in results.items():
        num_pairs = rounds[0].get("pairs", whole)
        seconds = [sum(result["step_seconds"]) for result in rounds]
        rates = sorted(num_pairs / s for s in seconds)
        rate = statistics.median(rates)
        with_reference = [num_pairs / (s + r["reference_seconds"]) for s, r in zip(seconds, rounds, strict=True)]
        facts = {
            "pairs_per_second": rate,
            "pairs_per_second_range": [rates[0], rates[-1]],
            "pairs_per_second_with_reference": statistics.median(with_reference),
            "cpu_seconds_per_pair": min(result["cpu_seconds"] for result in rounds) / num_pairs,
            "processor_share": statistics.median(
                result["cpu_seconds"] / (threads * s) for result, s in zip(rounds, seconds, strict=True)
            ),
            "peak_rss_bytes": max(result["peak_rss_bytes"] for result in rounds),
            "losses": rounds[0]["losses"],
            "versions": rounds[0]["versions"],
        }
        if tokens is not None:
            facts["tokens_per_second"] = rate * tokens / whole
        if "flops" in rounds[0]:
            peaks = [result["gemm_flops"][precision] for result in rounds]
            facts["gemm_flops"] = {key: max(r["gemm_flops"][key] for r in rounds) for key in ("bf16", "fp32")}
            facts["share_of_gemm_peak"] = statistics.median(
                r["flops"] / s / peak for r, s, peak in zip(rounds, seconds, peaks, strict=True)
            )
        summary[name] = facts
    if "preftune" in summary:
        ours = summary["preftune"]
        for facts in summary.values():
            facts["preftune_is_times_faster"] = ours["pairs_per_second"] / facts["pairs_per_second"]
            facts["preftune_takes_memory_share"] = ours["peak_rss_bytes"] / facts["peak_rss_bytes"]
            facts["preftune_takes_cpu_share"] = ours["cpu_seconds_per_pair"] / facts["cpu_seconds_per_pair"]
    return summary


def print_table(title: str, summary: dict[str, Any]) -> None:
    print(
        f"\n{title:<24}{'pairs/s':>9}{'with reference':>16}{'tokens/s':>10}{'processor':>11}{'peak GB':>9}"
        f"{'preftune is':>13}{'memory':>8}"
    )
    for name, entry in summary.items():
        tokens = f"{entry['tokens_per_second']:.0f}" if "tokens_per_second" in entry else "-"
        times = f"{entry['preftune_is_times_faster']:.2f}x" if "preftune_is_times_faster" in entry else "-"
        memory = f"{entry['preftune_takes_memory_share']:.0%}" if "preftune_takes_memory_share" in entry else "-"
        print(
            f"{name:<24}{entry['pairs_per_second']:>9.3f}{entry['pairs_per_second_with_reference']:>16.3f}"
            f"{tokens:>10}{entry['processor_share']:>11.0%}{entry['peak_rss_bytes'] / 1e9:>9.2f}{times:>13}{memory:>8}"
        )
    if "preftune" in summary:
        entry = summary["preftune"]
        peaks = ", ".join(f"{key} {value / 1e9:.0f} GFLOP/s" for key, value in entry["gemm_flops"].items())
        print(f"preftune reaches {entry['share_of_gemm_peak']:.0%} of this CPU's matrix product speed ({peaks})\n")


def write_markdown(report: dict[str, Any], path: Path) -> None:
    machine = report["machine"]
    runs = [run for entry in report["results"].values() for rounds in entry["runs"].values() for run in rounds]
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    lines = [
        "# DPO training on a CPU: this engine beside TRL's DPOTrainer",
        "",
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), {report['threads']} threads, "
        f"{machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
        f"All contenders compute in {report['precision']}, what this CPU multiplies faster. {_bf16_note(machine)}"
        "Written by `make bench-train`; how it measures: the head of `benchmarks/bench_train.py`.",
        "",
        "`tokens/s` counts prompt and response of both sides, without padding, for all alike. `CPU s/pair` is "
        "processor time, which other programs disturb less than the clock. `GEMM` is the share of this CPU's "
        "measured speed in a square product of 2048; `processor` the share of all cores that the contender received.",
        "",
    ]
    for title, result in report["results"].items():
        lines += _section(title, result, report)
    path.write_text("\n".join(lines), encoding="utf-8")


def _bf16_note(machine: dict[str, Any]) -> str:
    if {"avx512_bf16", "amx_bf16"} & set(machine["flags"]):
        return ""
    return "It has no bf16 arithmetic, in which TRL computes by default, so float32 is compared with float32. "


def _part_note(result: dict[str, Any]) -> str:
    """Say which contenders ran fewer pairs."""
    parts = {name: rounds[0].get("pairs", result["pairs"]) for name, rounds in result["runs"].items() if rounds}
    fewer = [f"{name} ran {number} of them" for name, number in parts.items() if number < result["pairs"]]
    return f" {'; '.join(fewer)}." if fewer else ""


def _section(title: str, result: dict[str, Any], report: dict[str, Any]) -> list[str]:
    most = max((len(rounds) for rounds in result["runs"].values()), default=0)
    rounds = f", up to {most} rounds (median)" if most > 1 else ""
    lines = [
        f"## {title.replace('/', ', ')}",
        "",
        f"{result['pairs']} pairs, {result['batch_size']} a step{rounds}.{_part_note(result)}",
        "",
        "| | pairs/s | with reference | tokens/s | CPU s/pair | processor | peak RSS | GEMM | we are | CPU time | "
        "memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in summarise(result, report["precision"], report["threads"]).items():
        share = f"{entry['share_of_gemm_peak']:.0%}" if "share_of_gemm_peak" in entry else ""
        is_ours = name == "preftune" or "preftune_is_times_faster" not in entry
        ratio = "" if is_ours else f"{entry['preftune_is_times_faster']:.2f}x as fast"
        cpu = "" if is_ours else f"1/{1 / entry['preftune_takes_cpu_share']:.2f}"
        memory = "" if is_ours else f"{entry['preftune_takes_memory_share']:.0%}"
        tokens = f"{entry['tokens_per_second']:.0f}" if "tokens_per_second" in entry else ""
        lines.append(
            f"| {name} | {entry['pairs_per_second']:.3f} | {entry['pairs_per_second_with_reference']:.3f} | {tokens} "
            f"| {entry['cpu_seconds_per_pair']:.1f} | {entry['processor_share']:.0%} "
            f"| {entry['peak_rss_bytes'] / 1e9:.2f} GB | {share} | {ratio} "
            f"| {cpu} | {memory} |"
        )
    return [*lines, ""]
