"""The experiment's parts, in the order in which they are run: what is drawn, trained and measured."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from frontier.evaluation import Evaluator
from frontier.pairs import Drawing, draw_pairs
from frontier.policies import Policy
from frontier.reviews import Review, read_reviews
from frontier.scorer import SCALE, load_scorer
from frontier.service import Service, every
from frontier.sizes import Size
from frontier.temperatures import Contests, judging_model
from parts import Parts

SEED = 0
MIDDLE_BETA = 0.1
"""Beta at which DPO's learning rate is chosen, and of the other preference losses that have one."""
LABEL_SMOOTHING = 0.1
UNLIKELIHOOD = 0.1
PAIR_SEEDS = (1, 2)
"""Of the two continuations of which a pair is made."""
HELD_OUT_SEEDS = (21, 22)
"""Likewise on the openings that nothing is trained on."""
STARTING_POINT = "sft"
"""The part whose job the others start from; jobs of the others are deleted once they are evaluated."""
PPO_PROGRAM = Path(__file__).with_name("ppo.py")
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything is."""

    folder: Path
    base_model: Path
    reviews: Path
    scorer: str
    ppo_python: Path | None
    """Python of the environment that has PPO; None: its parts are left out."""


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    run: Callable[[], Result]


class Experiment:
    """Everything from reviews to points of reward and divergence; each part is run once."""

    def __init__(self, place: Place, size: Size, parts: Parts, service: Service) -> None:
        self.place = place
        self.size = size
        self.parts = parts
        self.service = service

    def work(self) -> Result:
        """Return what all parts of one folder have in common."""
        return {
            "size": json.loads(json.dumps(asdict(self.size))),
            "base_model": self.place.base_model.name,
            "reviews": self.place.reviews.name,
            "scorer": self.place.scorer,
            "scale": SCALE,
            "seed": SEED,
        }

    def all_parts(self) -> Iterator[Part]:
        """Yield the parts that can be run here: those of the main plot first."""
        size = self.size
        yield Part(name="sft", run=self._sft)
        yield Part(name="pairs", run=self._pairs)
        for rate in size.learning_rates:
            yield self._on_pairs(f"try-dpo-{rate:g}", rate, variant="dpo", beta=MIDDLE_BETA)
        for beta in size.betas:
            yield Part(name=f"dpo-{beta:g}", run=partial(self._dpo, beta))
        yield Part(name="preferred-ft", run=self._preferred_ft)
        yield self._on_pairs("unlikelihood", variant="unlikelihood", beta=UNLIKELIHOOD)
        if self.place.ppo_python is not None:
            yield from self._ppo_parts()
        yield from self._contest_parts()
        smoothing = {"label_smoothing": LABEL_SMOOTHING}
        yield self._on_pairs("cdpo", variant="cdpo", beta=MIDDLE_BETA, variant_options=smoothing)
        yield self._on_pairs("ipo", variant="ipo", beta=MIDDLE_BETA)
        yield self._on_pairs("reference-free", variant="reference_free", beta=MIDDLE_BETA)

    def _ppo_parts(self) -> Iterator[Part]:
        size = self.size
        for rate in size.ppo_learning_rates:
            name = f"try-ppo-{rate:g}"
            yield Part(name=name, run=partial(self._ppo, name, self._middle_kl, rate))
        for target in size.target_kls:
            yield Part(name=f"ppo-true-{target:g}", run=partial(self._ppo_true, target))
        yield Part(name="reward", run=self._reward)
        for target in size.target_kls:
            yield Part(name=f"ppo-learnt-{target:g}", run=partial(self._ppo_learnt, target))

    def _contest_parts(self) -> Iterator[Part]:
        methods = ["dpo"]
        if self.place.ppo_python is not None:
            methods += ["ppo-true", "ppo-learnt"]
        for method in methods:
            yield Part(name=f"temperatures-{method}", run=partial(self._temperatures, method))
        if judging_model() is not None:
            for method in methods:
                yield Part(name=f"judged-{method}", run=partial(self._judged, method))

    def tidy(self, name: str) -> None:
        """Delete what a part that is done has left: its job, and the work of PPO."""
        if name != STARTING_POINT:
            self.service.forget(name)
        shutil.rmtree(self._ppo_folder(name), ignore_errors=True)

    @cached_property
    def reviews(self) -> list[Review]:
        size = self.size
        found = read_reviews(self.place.reviews, size.max_words, SEED)
        needed = size.num_sft_rows + size.num_pairs + size.num_evaluated
        if len(found) < needed:
            raise SystemExit(
                f"{self.place.reviews.name} gives {len(found)} openings; the size {size.name} takes {needed}"
            )
        return found[:needed]

    @property
    def evaluated(self) -> list[Review]:
        return self.reviews[-self.size.num_evaluated :]

    @cached_property
    def evaluator(self) -> Evaluator:
        openings = [review.opening for review in self.evaluated]
        return Evaluator(self._policy_of("sft"), openings, load_scorer(self.place.scorer), self.size.max_new_tokens)

    @property
    def _training_openings(self) -> list[str]:
        first = self.size.num_sft_rows
        return [review.opening for review in self.reviews[first : first + self.size.num_pairs]]

    def _sft(self) -> Result:
        size = self.size
        rows = [{"prompt": row.opening, "completion": row.continuation} for row in self.reviews[: size.num_sft_rows]]
        dataset_id = self.service.upload("sft", rows, kind="demonstration")["id"]
        settings = {"epochs": size.sft_epochs, "learning_rate": size.sft_learning_rate, "batch_size": size.batch_size}
        model = self.place.base_model.name
        job = self.service.train("sft", base_model=model, dataset_id=dataset_id, method="supervised", sft=settings)
        self.service.policy(job["id"], self._policy_of("sft"))
        return {"job_id": job["id"], "points": [self.evaluator.point(self._policy_of("sft"), 0)]}

    def _pairs(self) -> Result:
        """Draw two continuations of each opening from the SFT policy, and label them; likewise on held-out openings."""
        policy = Policy(self._policy_of("sft"))
        openings = [review.opening for review in self.evaluated]
        trained, held_out = (
            draw_pairs(policy, found, Drawing(
                reward=self.evaluator.reward, max_new_tokens=self.size.max_new_tokens,
                needs_end=self.size.needs_end, seeds=seeds,
            ))
            for found, seeds in ((self._training_openings, PAIR_SEEDS), (openings, HELD_OUT_SEEDS))
        )  # fmt: skip
        kept = [pair for pair in trained if pair is not None]
        others = [pair for pair in held_out if pair is not None]
        if not kept or not others:
            raise SystemExit(
                "the SFT policy ends none of its continuations, or draws the same one twice: no pair is left"
            )
        # a model may draw what is no text
        dataset, check = (
            self.service.upload(name, [pair.row for pair in found], on_error="skip")
            for name, found in (("pairs", kept), ("held-out", others))
        )
        return {
            "dataset_id": dataset["id"],
            "held_out_id": check["id"],
            "num_pairs": dataset["num_accepted"],
            "num_held_out": check["num_accepted"],
            "kept": dataset["num_accepted"] / len(trained),
            "labels_agree_with_reward": sum(pair.agrees for pair in kept) / len(kept),
            "chosen": [None if pair is None else pair.chosen for pair in held_out],
        }

    def _on_pairs(self, name: str, rate: float | None = None, **fields: Any) -> Part:
        """A preference job on the pairs; without a rate with the one that is chosen for DPO."""
        return Part(name=name, run=lambda: self._train(name, rate or self._chosen("dpo"), fields))

    def _train(self, name: str, rate: float, fields: Mapping[str, Any]) -> Result:
        stage = {"epochs": self.size.epochs, "learning_rate": rate, "batch_size": self.size.batch_size}
        return self._run_job(name, sft="skip", dpo=stage, score_training_pairs=False, **fields) | {
            "learning_rate": rate
        }

    def _dpo(self, beta: float) -> Result:
        if beta == MIDDLE_BETA:  # it is one of the runs that were tried
            rate = self._chosen("dpo")
            return self._adopt(f"try-dpo-{rate:g}", f"dpo-{beta:g}")
        return self._train(f"dpo-{beta:g}", self._chosen("dpo"), {"variant": "dpo", "beta": beta})

    def _preferred_ft(self) -> Result:
        size = self.size
        stage = {"epochs": size.epochs, "learning_rate": size.sft_learning_rate, "batch_size": size.batch_size}
        return self._run_job("preferred-ft", method="supervised", sft=stage)

    def _run_job(self, name: str, **fields: Any) -> Result:
        """Train from the SFT policy on the pairs, and evaluate the policies of all checkpoints."""
        pairs, size = self._known("pairs"), self.size
        distance = every(pairs["num_pairs"], size.batch_size, size.epochs, size.num_points)
        job = self.service.train(
            name, base_model=self._known("sft")["job_id"], dataset_id=pairs["dataset_id"],
            checkpoint_every_steps=distance, keep_checkpoints=max(2, size.num_points), **fields,
        )  # fmt: skip
        scratch = self.place.folder / "checkpoint"
        points = [
            self._point(name, step, partial(self.service.checkpoint, job["id"], checkpoint_id, scratch))
            for step, checkpoint_id in self.service.checkpoints(job)
        ]
        shutil.rmtree(scratch, ignore_errors=True)
        whole = partial(self.service.policy, job["id"], self._policy_of(name))
        points.append(self._point(name, job["results"]["step"], whole))
        return {"points": points, "training": job["actual"]}

    def _point(self, part: str, step: int, folder: Callable[[], Path]) -> Result:
        """Return the point of a policy of a part, measured once."""
        return self.parts.piece(part, f"point-{step}", lambda: self.evaluator.point(folder(), step))

    @property
    def _middle_kl(self) -> float:
        return self.size.target_kls[len(self.size.target_kls) // 3]

    def _reward(self) -> Result:
        """Train the reward model on the pairs, from the SFT policy (the paper's eq. 2)."""
        pairs, size = self._known("pairs"), self.size
        job = self.service.train(
            "reward", base_model=self._known("sft")["job_id"], dataset_id=pairs["dataset_id"], method="reward",
            validation_dataset_id=pairs["held_out_id"], reward={"epochs": size.epochs, "batch_size": size.batch_size},
        )  # fmt: skip
        self.service.policy(job["id"], self._policy_of("reward"))
        return {"held_out": job["results"]["held_out"], "training": job["actual"]}

    def _ppo_learnt(self, target: float) -> Result:
        """Run PPO on the reward model, with the rate that is chosen on the true reward."""
        self._known("reward")
        return self._ppo(f"ppo-learnt-{target:g}", target, self._chosen("ppo"), self._policy_of("reward"))

    def _ppo_true(self, target: float) -> Result:
        rate = self._chosen("ppo")
        if target == self._middle_kl:
            return self._adopt(f"try-ppo-{rate:g}", f"ppo-true-{target:g}")
        return self._ppo(f"ppo-true-{target:g}", target, rate)

    def _ppo(self, name: str, target: float, rate: float, reward_model: Path | None = None) -> Result:
        """Run PPO in its own environment, and evaluate the policies that it leaves; one that was killed goes on."""
        size, scratch = self.size, self._ppo_folder(name)
        settings = {
            "policy": str(self._policy_of("sft")), "out": str(scratch), "openings": self._training_openings,
            "scorer": self.place.scorer, "scale": SCALE, "target_kl": target,
            "reward_model": None if reward_model is None else str(reward_model), "learning_rate": rate,
            "num_steps": size.ppo_steps,
            "batch_size": size.ppo_batch_size, "max_new_tokens": size.max_new_tokens, "seed": SEED,
            "save_every": max(1, size.ppo_steps // size.num_points),
        }  # fmt: skip
        config, told_file = scratch / "settings.json", scratch / "told.json"
        wanted = json.dumps(settings)
        if not config.exists() or config.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            config.write_text(wanted, encoding="utf-8")
        if not told_file.exists():
            command = [str(self.place.ppo_python), str(PPO_PROGRAM), str(config)]
            if subprocess.run(command, check=False).returncode:
                raise SystemExit(f"{name}: PPO has failed; what it said stands above")
        told = json.loads(told_file.read_text(encoding="utf-8"))
        folder = self._policy_of(name)
        if (saved := scratch / f"step-{told['saved'][-1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)
            saved.rename(folder)
        folders = [*(scratch / f"step-{step}" for step in told["saved"][:-1]), folder]
        points = [
            self._point(name, step, partial(Path, path)) for step, path in zip(told["saved"], folders, strict=True)
        ]
        return {"points": points, "learning_rate": rate, "target_kl": target} | told

    def _temperatures(self, method: str) -> Result:
        """Judge the method's best run by the scorer at several temperatures."""
        return self._contests(method, "temperatures", Contests.by_reward)

    def _judged(self, method: str) -> Result:
        """Judge it by the language model that the operator has configured."""
        name = self._best_run(method)

        def judge(contests: Contests, policy: Policy, temperature: float) -> Result:
            return contests.by_model(policy, temperature, self.service, str(name))

        return self._contests(method, "judged", judge) | {"judge": judging_model()}

    def _contests(self, method: str, part: str, judge: Callable[[Contests, Policy, float], Result]) -> Result:
        name = self._best_run(method)
        if name is None:
            raise SystemExit(f"no run of {method} is done yet; run its parts first")
        policy = Policy(self._policy_of(name))
        contests = Contests(
            evaluator=self.evaluator,
            reference=Policy(self._policy_of("sft")),
            openings=[review.opening for review in self.evaluated],
            chosen=self._known("pairs")["chosen"],
            reviews=[review.continuation for review in self.evaluated],
            max_new_tokens=self.size.max_new_tokens,
        )
        rates = [
            self.parts.piece(f"{part}-{method}", f"{name}-{heat:g}", partial(judge, contests, policy, heat))
            for heat in self.size.temperatures
        ]
        return {"run": name, "rates": rates}

    def _best_run(self, method: str) -> str | None:
        """Return the method's run of the most reward at its end; None without any."""
        ends = {name: found["points"][-1]["reward"]["value"] for name, found in self.runs(f"{method}-").items()}
        return max(ends, key=lambda name: ends[name], default=None)

    def runs(self, prefix: str) -> dict[str, Result]:
        """Return the parts that are done and have points, by name."""
        names = sorted(path.stem for path in self.parts.folder.glob(f"{prefix}*.json"))
        known = {name: self.parts.find(name) or {} for name in names}
        return {name: found for name, found in known.items() if "points" in found}

    def _chosen(self, method: str) -> float:
        """Return the rate of the tried runs whose best point has the most reward within the largest target."""
        limit = max(self.size.target_kls)
        best = {}
        for name, found in self.runs(f"try-{method}-").items():
            near = [point["reward"]["value"] for point in found["points"] if point["kl"]["value"] <= limit]
            best[name] = max(near, default=float("-inf")), -found["learning_rate"]
        if not best:
            raise SystemExit(f"no learning rate of {method} has been tried yet; run these parts first")
        return float(self._known(max(best, key=lambda name: best[name]))["learning_rate"])

    def _adopt(self, tried: str, name: str) -> Result:
        """Return a run that was tried as one of the plot, with its policy."""
        if self._policy_of(tried).exists():
            self._policy_of(tried).rename(self._policy_of(name))
        return self._known(tried) | {"adopted_from": tried}

    def _policy_of(self, name: str) -> Path:
        return self.place.folder / "policies" / name

    def _ppo_folder(self, name: str) -> Path:
        return self.place.folder / "ppo" / name

    def _known(self, name: str) -> Result:
        found = self.parts.find(name)
        if found is None:
            raise SystemExit(f"the part {name} has to be run first")
        return found
