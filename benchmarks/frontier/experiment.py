"""The experiment's parts, in the order in which they are run: what is drawn, trained and measured."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from frontier.evaluation import Evaluator, win_rate
from frontier.policies import Policy
from frontier.reviews import Review, read_reviews
from frontier.scorer import SCALE, load_scorer, preference
from frontier.service import Service, every
from frontier.sizes import Size
from parts import Parts

from core.domain.jobs.methods import METHODS

SEED = 0
MIDDLE_BETA = 0.1
"""Beta at which DPO's learning rate is chosen, and of the other preference losses that have one."""
LABEL_SMOOTHING = 0.1
UNLIKELIHOOD = 0.1
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
            yield Part(name=f"dpo-{beta:g}", run=lambda beta=beta: self._dpo(beta))
        yield Part(name="preferred-ft", run=self._preferred_ft)
        yield self._on_pairs("unlikelihood", variant="unlikelihood", beta=UNLIKELIHOOD)
        if self.place.ppo_python is not None:
            middle = self._middle_kl
            for rate in size.ppo_learning_rates:
                yield Part(name=f"try-ppo-{rate:g}", run=lambda rate=rate: self._ppo(f"try-ppo-{rate:g}", middle, rate))
            for target in size.target_kls:
                yield Part(name=f"ppo-true-{target:g}", run=lambda target=target: self._ppo_true(target))
            if "reward" in METHODS:  # a service that trains no reward models leaves these out
                yield Part(name="reward", run=self._reward)
                for target in size.target_kls:
                    yield Part(name=f"ppo-learnt-{target:g}", run=lambda target=target: self._ppo_learnt(target))
        yield Part(name="temperatures", run=self._temperatures)
        smoothing = {"label_smoothing": LABEL_SMOOTHING}
        yield self._on_pairs("cdpo", variant="cdpo", beta=MIDDLE_BETA, variant_options=smoothing)
        yield self._on_pairs("ipo", variant="ipo", beta=MIDDLE_BETA)
        yield self._on_pairs("reference-free", variant="reference_free", beta=MIDDLE_BETA)

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
        """Draw two continuations of each opening from the SFT policy, and label them."""
        size, rng = self.size, random.Random(SEED)
        openings = [row.opening for row in self.reviews[size.num_sft_rows : size.num_sft_rows + size.num_pairs]]
        policy = Policy(self._policy_of("sft"))
        drawn = [policy.sample(openings, max_new_tokens=size.max_new_tokens, seed=seed) for seed in (1, 2)]
        rows: list[dict[str, str]] = []
        num_agreeing = 0
        for opening, one, other in zip(openings, *drawn, strict=True):
            is_whole = all(item.text.strip() and (item.is_ended or not size.needs_end) for item in (one, other))
            if one.text == other.text or not is_whole:
                continue
            reward, rival = (self.evaluator.reward(opening + item.text) for item in (one, other))
            is_first = rng.random() < preference(reward, rival)
            num_agreeing += (reward >= rival) if is_first else (rival >= reward)
            chosen, rejected = (one, other) if is_first else (other, one)
            rows.append({"prompt": opening, "chosen": chosen.text, "rejected": rejected.text})
        if not rows:
            raise SystemExit(
                "the SFT policy ends none of its continuations, or draws the same one twice: no pair is left"
            )
        dataset = self.service.upload("pairs", rows, on_error="skip")  # a model may draw what is no text
        return {
            "dataset_id": dataset["id"],
            "num_pairs": dataset["num_accepted"],
            "kept": dataset["num_accepted"] / len(openings),
            "labels_agree_with_reward": num_agreeing / len(rows),
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
        points = [self.evaluator.point(folder, step) for step, folder in self.service.checkpoints(job, scratch)]
        folder = self.service.policy(job["id"], self._policy_of(name))
        points.append(self.evaluator.point(folder, job["results"]["step"]))
        self.service.forget(name)
        return {"points": points, "training": job["actual"]}

    @property
    def _middle_kl(self) -> float:
        return self.size.target_kls[len(self.size.target_kls) // 3]

    def _reward(self) -> Result:
        """Train the reward model on the pairs, from the SFT policy (the paper's eq. 2)."""
        job = self.service.train(
            "reward", base_model=self._known("sft")["job_id"], dataset_id=self._known("pairs")["dataset_id"],
            method="reward", validation_fraction=0.05,
        )  # fmt: skip
        self.service.policy(job["id"], self._policy_of("reward"))
        return {"held_out": job["results"]["held_out"]}

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
        """Run PPO in its own environment, and evaluate the policies that it leaves."""
        size, scratch = self.size, self.place.folder / "ppo"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        openings = [row.opening for row in self.reviews[size.num_sft_rows : size.num_sft_rows + size.num_pairs]]
        settings = {
            "policy": str(self._policy_of("sft")), "out": str(scratch), "openings": openings,
            "scorer": self.place.scorer, "scale": SCALE, "target_kl": target,
            "reward_model": None if reward_model is None else str(reward_model), "learning_rate": rate,
            "num_steps": size.ppo_steps,
            "batch_size": size.ppo_batch_size, "max_new_tokens": size.max_new_tokens, "seed": SEED,
            "save_every": max(1, size.ppo_steps // size.num_points),
        }  # fmt: skip
        config = scratch / "settings.json"
        config.write_text(json.dumps(settings), encoding="utf-8")
        if subprocess.run([str(self.place.ppo_python), str(PPO_PROGRAM), str(config)], check=False).returncode:
            raise SystemExit(f"{name}: PPO has failed; what it said stands above")
        saved = sorted(scratch.glob("step-*"), key=lambda folder: int(folder.name.partition("-")[2]))
        points = [self.evaluator.point(folder, int(folder.name.partition("-")[2])) for folder in saved]
        shutil.rmtree(self._policy_of(name), ignore_errors=True)
        saved[-1].rename(self._policy_of(name))
        told = json.loads((scratch / "told.json").read_text(encoding="utf-8"))
        shutil.rmtree(scratch)
        return {"points": points, "learning_rate": rate, "target_kl": target} | told

    def _temperatures(self) -> Result:
        """Judge DPO and PPO by the scorer at several temperatures, against the SFT policy and the reviews."""
        written = [self.evaluator.reward(row.opening + row.continuation) for row in self.evaluated]
        found: Result = {}
        for method in ("dpo", "ppo-true", "ppo-learnt"):
            name = self._best_run(method)
            if name is not None:
                policy = Policy(self._policy_of(name))
                found[method] = {
                    "run": name,
                    "rates": [self._against(policy, written, t) for t in self.size.temperatures],
                }
        return {"methods": found}

    def _against(self, policy: Policy, written: Sequence[float], temperature: float) -> Result:
        openings = [row.opening for row in self.evaluated]
        rewards = []
        for seed, model in enumerate((policy, Policy(self._policy_of("sft")))):
            how = {"temperature": temperature, "seed": SEED + seed, "max_new_tokens": self.size.max_new_tokens}
            rewards.append(self.evaluator.rewards(openings, model.sample(openings, **how)))
        mine, theirs = rewards
        return {
            "temperature": temperature,
            "against_reference": asdict(win_rate(mine, theirs)),
            "against_reviews": asdict(win_rate(mine, written)),
        }

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
        return self._known(tried)

    def _policy_of(self, name: str) -> Path:
        return self.place.folder / "policies" / name

    def _known(self, name: str) -> Result:
        found = self.parts.find(name)
        if found is None:
            raise SystemExit(f"the part {name} has to be run first")
        return found
