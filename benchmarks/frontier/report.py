"""The page of the experiment: verdict, plot, table, win rates at temperatures, how it was run, what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from frontier.figure import figure_svg
from frontier.verdict import standings, verdict

Results = Mapping[str, Mapping[str, Any]]
METHODS = ("sft", "dpo", "ppo-true", "ppo-learnt", "preferred-ft", "unlikelihood", "cdpo", "ipo", "reference-free")
OPPONENTS = {
    "against_reference": "against the SFT policy",
    "against_chosen": "against the data's chosen",
    "against_reviews": "against the reviews",
}


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


def page(
    results: Results, work: Mapping[str, Any], machine: Mapping[str, Any], figure_file: str, missing: Sequence[str] = ()
) -> str:
    """Return the report as Markdown.

    Args:
        results: parts that are done, by name.
        work: what they have in common.
        machine: command, processor, versions and date.
        missing: names of parts that are not done.
    """
    runs = plotted(results)
    dpo = {name: points for name, points in runs.items() if method_of(name) == "dpo"}
    hours = sum(found.get("seconds", 0) for found in results.values()) / 3600
    lines = [
        "# Reward against divergence",
        "",
        f"Size {work['size']['name']}, base model {work['base_model']}, seed {work['seed']}; {hours:.2f} hours; "
        + ", ".join(f"{name} {value}" for name, value in (machine | _ppo_versions(results)).items())
        + ".",
        "",
        *([f"**Not run:** {', '.join(missing)}.", ""] if missing else []),
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
        *_contests(results),
        "## Size",
        "",
        *_table([["setting", "value"], *([name, _shown(value)] for name, value in work["size"].items())]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _ppo_versions(results: Results) -> dict[str, str]:
    found = next((known["versions"] for known in results.values() if "versions" in known), {})
    return {f"{name} of PPO": str(version) for name, version in found.items()}


def _shown(value: object) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list | tuple) else str(value)


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
        measured = results.get(results[name].get("adopted_from", name), results[name])
        rows.append(
            [
                name,
                str(len(points)),
                "" if rate is None else f"{rate:g}",
                str(best["step"]),
                _estimated(best["kl"]),
                _estimated(best["reward"]),
                f"{100 * best['ended']:.0f} %",
                f"{measured.get('seconds', 0) / 3600:.2f}",
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


def _contests(results: Results) -> Iterable[str]:
    """Yield the win rates at each temperature, by the ground truth, then by a language model."""
    for part, judge in (("temperatures-", "the ground truth"), ("judged-", "a language model")):
        found = [known for name, known in results.items() if name.startswith(part)]
        if not found:
            continue
        opponents = [name for name in OPPONENTS if any(name in rate for known in found for rate in known["rates"])]
        rows = [["run", "temperature", *(OPPONENTS[name] for name in opponents)]]
        for known in found:
            for rate in known["rates"]:
                figures = [_rate(rate.get(name)) for name in opponents]
                rows.append([known["run"], f"{rate['temperature']:g}", *figures])
        yield f"## Win rates by {judge}"
        yield ""
        yield (
            "Share of openings where the run's continuation is the better one, draws counting half, with 95 % "
            "intervals; the run of each method with the most reward at its end. The SFT policy writes at the same "
            "temperature; the data's chosen are drawn and labelled on these openings as the pairs were, at temperature "
            "1, and an opening without a pair is left out."
        )
        if judge == "a language model":
            names = sorted({str(known["judge"]) for known in found})
            yield f"Judge: {', '.join(names)}, asked in both orders; pairs without a verdict do not count."
        yield ""
        yield from _table(rows)
        yield ""


def _rate(found: Mapping[str, Any] | None) -> str:
    return "no pair" if found is None else f"{_estimated(found)}, n={found['num_openings']}"


def _estimated(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rest)]
