"""TRL's DPOTrainer in the side-by-side of `bench_train.py`. Runs in TRL's own environment; imports nothing of ours."""

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter, process_time

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """Time between the ends of optimizer steps; with gradient accumulation, of whole steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cpu_ends: list[float] = []

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        if not self.ends:
            self.on_step_end()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.ends.append(perf_counter())
        self.cpu_ends.append(process_time())


class TimedTrainer(DPOTrainer):  # type: ignore[misc]
    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args: object, **kwargs: object) -> Dataset:
        started = perf_counter()
        result = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += perf_counter() - started
        return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    settings = json.loads(parser.parse_args().settings.read_text())
    torch.set_num_threads(settings["threads"])
    clock = Clock()
    trainer = make_trainer(settings, clock)
    trainer.train()
    seconds = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    result = {
        "step_seconds": seconds[1:],
        "cpu_seconds": clock.cpu_ends[-1] - clock.cpu_ends[1],
        "reference_seconds": trainer.reference_seconds,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][1:],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": torch.__version__, "trl": trl.__version__},
    }
    Path(settings["result"]).write_text(json.dumps(result))


def make_trainer(settings: dict[str, object], clock: Clock) -> DPOTrainer:
    """TRL's defaults but for what `settings["options"]` says, and what a benchmark needs."""
    model_dir = str(settings["model"])
    options = dict(settings["options"])  # type: ignore[call-overload]
    batch_size = int(settings["batch_size"])  # type: ignore[call-overload]
    config = DPOConfig(
        output_dir=str(settings["scratch"]),
        per_device_train_batch_size=options.pop("per_device_train_batch_size", batch_size),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        **options,
    )
    peft_config = None
    if settings["lora"]:
        from peft import LoraConfig  # noqa: PLC0415  (full fine-tuning must not need peft)

        peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(list(settings["rows"])),  # type: ignore[call-overload]
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        callbacks=[clock],
        peft_config=peft_config,
    )


if __name__ == "__main__":
    main()
