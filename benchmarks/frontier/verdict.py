"""The verdict: does DPO lie on or above PPO at every divergence?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.domain.training.comparisons import Estimated, mean_with_interval

Point = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A point of PPO beside the best of DPO that is no further from the SFT policy."""

    run: str
    step: int
    kl: float
    beside: str | None
    """The run of DPO; None: no point of DPO is so near."""
    difference: Estimated | None
    """Reward of DPO minus that of PPO on the same openings."""


def standings(dpo: Mapping[str, Sequence[Point]], ppo: Mapping[str, Sequence[Point]]) -> list[Standing]:
    """Return where DPO stands beside each point of PPO, by divergence."""
    known = [(name, point) for name, points in dpo.items() for point in points]
    found = []
    for name, points in ppo.items():
        for point in points:
            near = [item for item in known if item[1]["kl"]["value"] <= point["kl"]["value"]]
            best = max(near, key=lambda item: item[1]["reward"]["value"], default=None)
            found.append(
                Standing(
                    run=name,
                    step=point["step"],
                    kl=point["kl"]["value"],
                    beside=None if best is None else best[0],
                    difference=None if best is None else _difference(best[1], point),
                )
            )
    return sorted(found, key=lambda item: item.kl)


def verdict(found: Sequence[Standing]) -> str:
    """Return the answer in words, with the numbers of points behind it."""
    if not found:
        return "There is no verdict: PPO was not run."
    compared = [item for item in found if item.difference is not None]
    below = [item for item in compared if item.difference is not None and (item.difference.high or 0.0) < 0]
    above = [item for item in compared if item.difference is not None and (item.difference.low or 0.0) > 0]
    apart = len(found) - len(compared)
    told = (
        f"Of {len(found)} points of PPO, DPO's best point at no more divergence has distinguishably more reward beside "
        f"{len(above)}, is not told apart beside {len(compared) - len(above) - len(below)}, and has less beside "
        f"{len(below)}; nearer than {apart} of them DPO has no point."
    )
    if below:
        names = ", ".join(f"{item.run} step {item.step} at {item.kl:.1f} nats" for item in below)
        return f"No: DPO does not lie on or above PPO at every KL. {told} PPO is above at: {names}."
    if not compared:
        return f"There is no verdict: {told}"
    if not above:
        return f"Not decided: no point tells the two apart. {told}"
    return f"Yes, as far as these points tell: DPO lies on or above PPO at every KL at which both have points. {told}"


def _difference(one: Point, other: Point) -> Estimated:
    pairs = zip(one["rewards"], other["rewards"], strict=True)
    return mean_with_interval([mine - theirs for mine, theirs in pairs])
