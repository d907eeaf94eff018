"""Choice of the setting to take: as good as the best one by what was measured, and nearest to the reference."""

from collections.abc import Sequence

from core.domain.training.comparisons import PairedDifference, paired_difference
from core.services.comparisons.gathering import ComparedRun
from core.wording import counted


def choose(runs: Sequence[ComparedRun]) -> tuple[str | None, str]:
    """Return the job to take, None where there is none, and the reason in one sentence.

    Of the published policies that are not distinguishably less accurate than the best one (the 95 % interval of the
    paired difference contains 0), the one of least divergence from the reference.
    """
    judged = [run for run in runs if run.accuracy is not None]
    if not judged:
        return None, "No job has published a policy with rewards that were measured on held-out pairs."
    best = max(judged, key=lambda run: (run.accuracy or 0.0, -(run.kl if run.kl is not None else float("inf"))))
    if best.kl is None:
        return best.job_id, f"{best.label} has the most reward accuracy, {_share(best)}; its divergence is not known."
    nearer = [run for run in judged if run.kl is not None and run.kl < best.kl]
    chosen, difference, num_apart = best, None, 0
    for run in nearer:
        found = _paired(run, best)
        num_apart += found is None
        is_as_good = found is not None and found.accuracy.high is not None and found.accuracy.high >= 0
        if is_as_good and (run.kl or 0.0) < (chosen.kl or 0.0):
            chosen, difference = run, found
    if difference is None:
        others = "; no other one is both nearer to the reference and as accurate" if len(judged) > 1 else ""
        if num_apart:
            others = f"; {counted(num_apart, 'other')} nearer to the reference cannot be compared with it pair by pair"
        return best.job_id, f"{best.label} has the most reward accuracy, {_share(best)} at {best.kl:.3g} nats{others}."
    value, low, high = difference.accuracy.value, difference.accuracy.low, difference.accuracy.high
    return chosen.job_id, (
        f"{chosen.label} is {chosen.kl:.3g} nats from the reference instead of {best.kl:.3g}, and its reward accuracy, "
        f"{_share(chosen)}, is not distinguishably below the best ({_share(best)}, {best.label}): paired difference "
        f"{value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, on {difference.num_pairs} held-out pairs."
    )


def _paired(run: ComparedRun, best: ComparedRun) -> PairedDifference | None:
    if run.why_not_paired or best.why_not_paired or run.held_out_rows != best.held_out_rows:
        return None
    return paired_difference(run.margins, best.margins)


def _share(run: ComparedRun) -> str:
    return f"{100 * (run.accuracy or 0.0):.1f} %"
