"""The page of the experiment: verdict, plot, table, temperatures, how it was run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from frontier.figure import figure_svg
from frontier.verdict import standings, verdict

Results = Mapping[str, Mapping[str, Any]]
METHODS = ("sft", "dpo", "ppo-true", "ppo-learnt", "preferred-ft", "unlikelihood", "cdpo", "ipo", "reference-free")


def method_of(name: str) -> str | None:
    """Return the method of a run; None of one that was only tried."""
    found = [method for method in METHODS if name == method or name.startswith(f"{method}-")]
    return max(found, key=len, default=None)


def plotted(results: Results) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the points of all runs of the plot, by method, then by name."""
    names = [name for name in results if method_of(name) is not None and "points" in results[name]]
    order = sorted(names, key=lambda name: (METHODS.index(method_of(name) or ""), name))
    return {name: results[name]["points"] for name in order}


def figure(results: Results) -> str:
    runs = plotted(results)
    return figure_svg(runs, {name: method_of(name) or "" for name in runs})


def page(results: Results, work: Mapping[str, Any], machine: Mapping[str, Any], figure_file: str) -> str:
    """Return the report as Markdown.

    Args:
        results: parts that are done, by name.
        work: what they have in common.
        machine: processor, versions and date.
    """
    runs = plotted(results)
    dpo = {name: points for name, points in runs.items() if method_of(name) == "dpo"}
    lines = [
        "# Reward against divergence",
        "",
        f"Size {work['size']['name']}, base model {work['base_model']}, seed {work['seed']}; "
        f"{sum(found.get('seconds', 0) for found in results.values()) / 3600:.2f} hours; "
        + ", ".join(f"{name} {value}" for name, value in machine.items())
        + ".",
        "",
        *_verdicts(dpo, runs),
        f"![Reward against divergence]({figure_file})",
        "",
        *_table(_run_rows(runs, results)),
        "",
        "Reward: sentiment of opening and continuation by the scorer, in [-1, 1], times "
        f"{work['scale']:g}; KL(policy || SFT policy) of a whole continuation; both on {work['size']['num_evaluated']} "
        "openings that nothing was trained on, with 95 % intervals. Each run by its point of the most reward; the plot "
        "has all points.",
        "",
        *_pairs(results.get("pairs")),
        *_reward(results.get("reward")),
        *_temperatures(results.get("temperatures")),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _verdicts(dpo: Mapping[str, Any], runs: Mapping[str, Any]) -> Iterable[str]:
    for method, words in (("ppo-true", "PPO with the true reward"), ("ppo-learnt", "PPO with the learnt reward")):
        ppo = {name: points for name, points in runs.items() if method_of(name) == method}
        yield f"**{words}.** {verdict(standings(dpo, ppo))}" if dpo and ppo else f"**{words}.** Not run."
        yield ""


def _run_rows(runs: Mapping[str, Sequence[Mapping[str, Any]]], results: Results) -> list[list[str]]:
    rows = [["run", "points", "learning rate", "step", "KL", "reward", "ended", "hours"]]
    for name, points in runs.items():
        best = max(points, key=lambda point: point["reward"]["value"])
        rate = results[name].get("learning_rate")
        rows.append(
            [
                name,
                str(len(points)),
                "" if rate is None else f"{rate:g}",
                str(best["step"]),
                _estimated(best["kl"]),
                _estimated(best["reward"]),
                f"{100 * best['ended']:.0f} %",
                f"{results[name].get('seconds', 0) / 3600:.2f}",
            ]
        )
    return rows


def _pairs(found: Mapping[str, Any] | None) -> Iterable[str]:
    if found is not None:
        yield (
            f"{found['num_pairs']} pairs ({100 * found['kept']:.0f} % of those drawn; the others were equal, or did "
            f"not end). {100 * found['labels_agree_with_reward']:.0f} % of the labels agree with the reward."
        )
        yield ""


def _reward(found: Mapping[str, Any] | None) -> Iterable[str]:
    if found is not None:
        accuracy = found["held_out"]["reward_accuracy"]
        yield f"The reward model ranks {_estimated(accuracy)} of the held-out pairs as they are labelled."
        yield ""


def _temperatures(found: Mapping[str, Any] | None) -> Iterable[str]:
    if found is None or not found["methods"]:
        return
    yield "## Temperatures"
    yield ""
    yield "Share of openings where the policy's continuation has the larger reward, draws counting half."
    yield ""
    head = ["temperature"]
    for judged in found["methods"].values():
        head += [f"{judged['run']} against the SFT policy", f"{judged['run']} against the reviews"]
    rows = [head]
    for rates in zip(*(judged["rates"] for judged in found["methods"].values()), strict=True):
        row = [f"{rates[0]['temperature']:g}"]
        for rate in rates:
            row += [_estimated(rate["against_reference"]), _estimated(rate["against_reviews"])]
        rows.append(row)
    yield from _table(rows)


def _estimated(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rest)]
