"""The results of `bench_train.py` as a table on the screen and as a page."""

from pathlib import Path
from typing import Any

GOALS = {"trl-default": "default", "trl-best": "best", "trl-malloc": "best, our allocator settings"}


def print_table(title: str, summary: dict[str, Any]) -> None:
    print(f"\n{title:<16}{'pairs/s':>9}{'with reference':>16}{'tokens/s':>10}{'peak GB':>9}{'preftune is':>13}")
    for name, entry in summary.items():
        tokens = f"{entry['tokens_per_second']:.0f}" if "tokens_per_second" in entry else "-"
        times = f"{entry['preftune_is_times_faster']:.2f}x" if "preftune_is_times_faster" in entry else "-"
        print(
            f"{name:<16}{entry['pairs_per_second']:>9.3f}{entry['pairs_per_second_with_reference']:>16.3f}"
            f"{tokens:>10}{entry['peak_rss_bytes'] / 1e9:>9.2f}{times:>13}"
        )
    if "preftune" in summary:
        entry = summary["preftune"]
        peaks = ", ".join(f"{key} {value / 1e9:.0f} GFLOP/s" for key, value in entry["gemm_flops"].items())
        print(f"preftune reaches {entry['share_of_gemm_peak']:.0%} of this CPU's matrix product speed ({peaks})\n")


def write_markdown(report: dict[str, Any], path: Path) -> None:
    machine, first = report["machine"], next(iter(report["results"].values()))
    versions = {name: version for entry in first["contenders"].values() for name, version in entry["versions"].items()}
    lines = [
        "# DPO training on a CPU: this engine beside TRL's DPOTrainer",
        "",
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), {report['threads']} threads, "
        f"{machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
        f"All contenders compute in {report['precision']}, what this CPU multiplies faster. "
        "Written by `make bench-train`; how it measures: the head of `benchmarks/bench_train.py`.",
        "",
        "`tokens/s` counts prompt and response of both sides, without padding, for all alike. `CPU s/pair` is "
        "processor time, which other programs disturb less than the clock. `GEMM` is the share of this CPU's "
        "measured speed in a square product of 2048.",
        "",
    ]
    for title, result in report["results"].items():
        lines += _section(title, result)
    path.write_text("\n".join(lines), encoding="utf-8")


def _section(title: str, result: dict[str, Any]) -> list[str]:
    rounds = f", {result['rounds']} rounds (median)" if result["rounds"] > 1 else ""
    lines = [
        f"## {title.replace('/', ', ')}",
        "",
        f"{result['pairs']} pairs, {result['batch_size']} a step{rounds}.",
        "",
        "| | pairs/s | with reference | tokens/s | CPU s/pair | peak RSS | GEMM | preftune is | of its memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in result["contenders"].items():
        share = f"{entry['share_of_gemm_peak']:.0%}" if "share_of_gemm_peak" in entry else ""
        is_ours = name == "preftune" or "preftune_is_times_faster" not in entry
        ratio = "" if is_ours else f"{entry['preftune_is_times_faster']:.2f}x as fast"
        memory = "" if is_ours else f"{entry['preftune_takes_memory_share']:.0%}"
        tokens = f"{entry['tokens_per_second']:.0f}" if "tokens_per_second" in entry else ""
        lines.append(
            f"| {name} | {entry['pairs_per_second']:.3f} | {entry['pairs_per_second_with_reference']:.3f} | {tokens} "
            f"| {entry['cpu_seconds_per_pair']:.1f} | {entry['peak_rss_bytes'] / 1e9:.2f} GB | {share} | {ratio} "
            f"| {memory} |"
        )
    return [*lines, ""]
