"""The DPO paper's first experiment on a small language model, in parts: a later run goes on behind the last one.

    python benchmarks/frontier/run.py --base-model FOLDER [--folder FOLDER] [--size full|quick|tiny] [--hours 2]

A base model is fine-tuned on film reviews (SFT); pairs of its own continuations are labelled by a public scorer through
Bradley–Terry; every method trains on them, through this project's service, and PPO, in an environment of its own, on
the scorer itself. All are judged on openings that nothing was trained on: ground-truth reward, and KL to the SFT
policy, at many points of each run. The report and the plot in the folder are written anew after each part.
"""

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "benchmarks")]

from frontier import report  # noqa: E402 - its place is on the path now
from frontier.experiment import Experiment, Place  # noqa: E402
from frontier.reviews import packaged_reviews  # noqa: E402
from frontier.scorer import VADER  # noqa: E402
from frontier.service import Service  # noqa: E402
from frontier.sizes import SIZES  # noqa: E402
from parts import Parts, TimeIsOver, end_cleanly  # noqa: E402

from core.file_locks import wait_for_lock  # noqa: E402

LOCK_SECONDS = 15.0
"""Time that processes of a run which was killed have to end."""


def main() -> None:
    arguments = parse_arguments()
    end_cleanly()
    transformers.utils.logging.disable_progress_bar()
    folder = arguments.folder.resolve()
    place = Place(
        folder=folder,
        base_model=arguments.base_model.resolve(),
        reviews=(arguments.reviews or packaged_reviews()).resolve(),
        scorer=arguments.scorer,
        ppo_python=arguments.ppo_python,
    )
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    parts = Parts(folder / "parts", None if arguments.hours is None else 60 * arguments.hours)
    with only_run(folder), Service(folder / "service", place.base_model.parent) as service:
        experiment = Experiment(place, SIZES[arguments.size], parts, service)
        parts.claim(experiment.work())
        try:
            for part in experiment.all_parts():
                if parts.find(part.name) is None and (not arguments.only or part.name in arguments.only):
                    parts.take(part.name, part.run)
                    experiment.tidy(part.name)
                    write_report(experiment)
        except TimeIsOver as over:
            print(over)
        write_report(experiment)
    print(f"the report is {folder / 'report.md'}")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the folder for this run. Exits where another one works there and does not end."""
    with (folder / "run.lock").open("w") as file:
        if not wait_for_lock(file.fileno(), LOCK_SECONDS):
            sys.exit(f"another run works in {folder}; wait for its end, or name another folder")
        yield


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path, required=True, help="folder of a small base model")
    parser.add_argument("--folder", type=Path, default=Path("data/frontier"), help="where everything is kept")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--reviews", type=Path, help="CSV file with a column `text`; default: the installed package's")
    parser.add_argument("--scorer", default=VADER, help="module:function, from a text to its sentiment in [-1, 1]")
    parser.add_argument("--ppo-python", type=Path, help="Python with TRL 0.11.4; without it PPO is left out")
    parser.add_argument("--hours", type=float, help="begin no further part after so many hours")
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts only")
    return parser.parse_args()


def write_report(experiment: Experiment) -> None:
    names = [part.name for part in experiment.all_parts()]
    results = {name: found for name in names if (found := experiment.parts.find(name))}
    if not report.plotted(results):
        return
    loads = [found["load_average_before"] for found in results.values()]
    machine: dict[str, Any] = {
        "on": f"{platform.machine()} with {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load average": f"{min(loads):g} to {max(loads):g}",
        "until": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    folder = experiment.place.folder
    (folder / "frontier.svg").write_text(report.figure(results), encoding="utf-8")
    missing = [name for name in names if name not in results]
    page = report.page(results, experiment.work(), machine, "frontier.svg", missing)
    (folder / "report.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
