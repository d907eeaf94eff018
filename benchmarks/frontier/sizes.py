"""How large the experiment is: the whole one, a quick one, and the smallest one, which the tests run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of the experiment; the budgets of DPO and PPO are drawn samples of equal number."""

    name: str
    num_sft_rows: int
    num_pairs: int
    """Pairs, one for each opening: two samples of the SFT policy."""
    num_evaluated: int
    """Openings that nothing was trained on, for every point."""
    max_words: int
    """Of an opening with its continuation."""
    max_new_tokens: int
    num_points: int
    """Evaluations of a run, at equal distances, the last one at its end."""
    sft_epochs: int
    sft_learning_rate: float
    epochs: int
    """Of everything that trains on the pairs."""
    batch_size: int
    betas: tuple[float, ...]
    target_kls: tuple[float, ...]
    """Of PPO, nats per response."""
    learning_rates: tuple[float, ...]
    """Tried for DPO; the others on pairs train with the chosen one."""
    ppo_learning_rates: tuple[float, ...]
    """Tried for PPO, as many as for DPO."""
    ppo_steps: int
    ppo_batch_size: int
    temperatures: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    needs_end: bool = True
    """Pairs have only continuations that end by themselves: others would be taught to end in the middle."""


FULL = Size(
    name="full",
    num_sft_rows=6000,
    num_pairs=4000,
    num_evaluated=256,
    max_words=32,
    max_new_tokens=64,
    num_points=8,
    sft_epochs=1,
    sft_learning_rate=1e-4,
    epochs=1,
    batch_size=32,
    betas=(0.05, 0.1, 1.0, 5.0),
    target_kls=(3.0, 6.0, 9.0, 12.0),
    learning_rates=(1e-6, 5e-6, 2e-5),
    ppo_learning_rates=(1e-6, 5e-6, 2e-5),
    ppo_steps=125,
    ppo_batch_size=64,
)
"""Betas and target divergences are the paper's (arXiv:2305.18290, section 6.1 and appendix C.1)."""
QUICK = Size(
    name="quick",
    num_sft_rows=512,
    num_pairs=256,
    num_evaluated=64,
    max_words=16,
    max_new_tokens=24,
    num_points=2,
    sft_epochs=1,
    sft_learning_rate=1e-4,
    epochs=1,
    batch_size=16,
    betas=(0.05, 0.1, 1.0, 5.0),
    target_kls=(3.0, 12.0),
    learning_rates=(5e-5,),
    ppo_learning_rates=(1.4e-5,),
    ppo_steps=8,
    ppo_batch_size=16,
)
"""Sized for an hour of one core at most: a single rate of each, so neither DPO nor PPO (at TRL's own rate) is tuned."""
TINY = Size(
    name="tiny",
    num_sft_rows=8,
    num_pairs=8,
    num_evaluated=6,
    max_words=8,
    max_new_tokens=12,
    num_points=2,
    sft_epochs=1,
    sft_learning_rate=1e-3,
    epochs=1,
    batch_size=4,
    betas=(0.1,),
    target_kls=(3.0,),
    learning_rates=(1e-3,),
    ppo_learning_rates=(1e-3,),
    ppo_steps=2,
    ppo_batch_size=4,
    temperatures=(0.0, 1.0),
    needs_end=False,  # a model of random weights ends nothing
)
SIZES = {size.name: size for size in (FULL, QUICK, TINY)}
