"""PPO of TRL against a scorer or a reward model, in an environment of its own: `python ppo.py settings.json`.

TRL 0.11.4 is the last one whose PPO takes rewards that are computed outside (`PPOTrainer.step`), and that steers its
penalty towards a target divergence, as the paper does. It needs nothing of this project's service. With each policy
that is saved goes all that a run depends on, so that one that was killed goes on behind it with the same numbers.
"""

import importlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
import trl
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

_BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_BENCHMARKS), str(_BENCHMARKS.parent)]

from core.children.parent import die_with_parent  # noqa: E402 - its place is on the path now

HORIZON_STEPS = 10
"""Steps in which the penalty may grow or shrink by a fifth: TRL's default of 10,000 samples is a whole run here."""


def main(settings: dict) -> None:
    die_with_parent()
    torch.manual_seed(settings["seed"])
    folder, out = settings["policy"], Path(settings["out"])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    policy, reference = (AutoModelForCausalLMWithValueHead.from_pretrained(folder) for _ in range(2))
    size = settings["batch_size"]
    config = PPOConfig(
        learning_rate=settings["learning_rate"], batch_size=size, mini_batch_size=size // 4 or 1, seed=settings["seed"],
        adap_kl_ctrl=True, target=settings["target_kl"], horizon=HORIZON_STEPS * size,
    )  # fmt: skip
    trainer = PPOTrainer(config, policy, reference, tokenizer)
    sampling = {
        "return_prompt": False, "batch_size": size, "do_sample": True, "top_k": 0, "top_p": 1.0,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    reward, rng = load_reward(settings), random.Random(settings["seed"])
    state = load_state(trainer, rng, out / "state.pt")
    started = time.monotonic() - state["seconds"]
    for step in range(len(state["kls"]) + 1, settings["num_steps"] + 1):
        openings = rng.choices(settings["openings"], k=size)
        queries = [tokenizer(opening, return_tensors="pt")["input_ids"][0] for opening in openings]
        trainer.model.eval()  # a step leaves it in training, where dropout draws, too
        responses = trainer.generate(queries, max_new_tokens=settings["max_new_tokens"], **sampling)
        texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
        written = [opening + text for opening, text in zip(openings, texts, strict=True)]
        rewards = reward(written, [torch.cat(both).tolist() for both in zip(queries, responses, strict=True)])
        told = trainer.step(queries, responses, [torch.tensor(value) for value in rewards])
        state["kls"].append(float(told["objective/kl"]))
        state["rewards"].append(sum(rewards) / size)
        print(f"    step {step}: reward {state['rewards'][-1]:.3f}, KL {state['kls'][-1]:.3f}", flush=True)
        if step % settings["save_every"] == 0 or step == settings["num_steps"]:
            save(trainer, tokenizer, out / f"step-{step}")
            state |= {"saved": [*state["saved"], step], "seconds": time.monotonic() - started}
            save_state(trainer, rng, out / "state.pt", state)
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    told = {
        "versions": versions, "ppo_seconds": state["seconds"], "saved": state["saved"],
        "kl_by_step": state["kls"], "reward_by_step": state["rewards"],
    }  # fmt: skip
    write_whole(out / "told.json", lambda path: path.write_text(json.dumps(told)))


def load_reward(settings: dict) -> Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]:
    """Return the function from texts and their tokens to rewards: of the reward model, where there is one."""
    if settings["reward_model"] is not None:
        return learnt_reward(settings["reward_model"])
    module, _, function = settings["scorer"].partition(":")
    score = getattr(importlib.import_module(module), function)
    return lambda texts, _tokens: [settings["scale"] * score(text) for text in texts]


def learnt_reward(folder: str) -> Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]:
    """Return the numbers that the model reads at each text's last token that is no padding token."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pad = model.config.pad_token_id

    @torch.no_grad()
    def reward(_texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[float]:
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *([pad] * (longest - len(row)))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
        return model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()

    return reward


def load_state(trainer: PPOTrainer, rng: random.Random, path: Path) -> dict:
    """Put the run where it was when the last policy was saved, and return what it has told."""
    if not path.exists():
        return {"kls": [], "rewards": [], "saved": [], "seconds": 0.0}
    kept = torch.load(path, weights_only=False)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.pretrained_model.load_state_dict(kept["policy"])
    model.v_head.load_state_dict(kept["value_head"])
    trainer.optimizer.load_state_dict(kept["optimizer"])
    trainer.kl_ctl.value = kept["kl_coefficient"]
    rng.setstate(kept["rng"])
    np.random.set_state(kept["numpy"])
    torch.set_rng_state(kept["torch"])
    return kept["told"]


def save_state(trainer: PPOTrainer, rng: random.Random, path: Path, told: dict) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    kept = {
        "policy": model.pretrained_model.state_dict(),
        "value_head": model.v_head.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "kl_coefficient": trainer.kl_ctl.value,
        "rng": rng.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "told": told,
    }
    write_whole(path, lambda unfinished: torch.save(kept, unfinished))


def save(trainer: PPOTrainer, tokenizer: object, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.part")
    for known in (folder, unfinished):
        shutil.rmtree(known, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).pretrained_model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    write(unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
