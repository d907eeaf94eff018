"""PPO of TRL against a scorer or a reward model, in an environment of its own: `python ppo.py settings.json`.

TRL 0.11.4 is the last one whose PPO takes rewards that are computed outside (`PPOTrainer.step`), and that steers its
penalty towards a target divergence, as the paper does. It needs nothing of this project but the scorer.
"""

import importlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
import trl
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
HORIZON_STEPS = 10
"""Steps in which the penalty may grow or shrink by a fifth: TRL's default of 10,000 samples is a whole run here."""


def main(settings: dict) -> None:
    torch.manual_seed(settings["seed"])
    folder = settings["policy"]
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    policy, reference = (AutoModelForCausalLMWithValueHead.from_pretrained(folder) for _ in range(2))
    size = settings["batch_size"]
    config = PPOConfig(
        learning_rate=settings["learning_rate"], batch_size=size, mini_batch_size=size // 4 or 1, seed=settings["seed"],
        adap_kl_ctrl=True, target=settings["target_kl"], horizon=HORIZON_STEPS * size,
    )  # fmt: skip
    trainer = PPOTrainer(config, policy, reference, tokenizer)
    reward, rng = load_reward(settings), random.Random(settings["seed"])
    kls, started = [], time.monotonic()
    for step in range(1, settings["num_steps"] + 1):
        openings = rng.choices(settings["openings"], k=size)
        queries = [tokenizer(opening, return_tensors="pt")["input_ids"][0] for opening in openings]
        responses = trainer.generate(
            queries, return_prompt=False, batch_size=size, do_sample=True, top_k=0, top_p=1.0,
            max_new_tokens=settings["max_new_tokens"], pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
        written = [opening + text for opening, text in zip(openings, texts, strict=True)]
        rewards = reward(written, [torch.cat(both).tolist() for both in zip(queries, responses, strict=True)])
        told = trainer.step(queries, responses, [torch.tensor(value) for value in rewards])
        kls.append(float(told["objective/kl"]))
        print(f"    step {step}: reward {sum(rewards) / size:.3f}, KL {kls[-1]:.3f}", flush=True)
        if step % settings["save_every"] == 0 or step == settings["num_steps"]:
            save(trainer, tokenizer, Path(settings["out"]) / f"step-{step}")
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    told = {"versions": versions, "ppo_seconds": time.monotonic() - started, "kl_by_step": kls}
    (Path(settings["out"]) / "told.json").write_text(json.dumps(told))


def load_reward(settings: dict) -> Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]:
    """Return the function from texts and their tokens to rewards: of the reward model, where there is one."""
    if settings["reward_model"] is not None:
        return learnt_reward(settings["reward_model"])
    module, _, function = settings["scorer"].partition(":")
    score = getattr(importlib.import_module(module), function)
    return lambda texts, _tokens: [settings["scale"] * score(text) for text in texts]


def learnt_reward(folder: str) -> Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]:
    """Return the numbers that the model reads at each text's last token."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pad = model.config.pad_token_id

    @torch.no_grad()
    def reward(_texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[float]:
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *([pad] * (longest - len(row)))] for row in tokens])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
        return model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()

    return reward


def save(trainer: PPOTrainer, tokenizer: object, folder: Path) -> None:
    trainer.accelerator.unwrap_model(trainer.model).pretrained_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
