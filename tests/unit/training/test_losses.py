"""The table of losses against the registry, and the seam with the engine. Values are checked in tests/numerics."""

import dataclasses

import pytest
import torch

from core.domain.variants.catalogue import VARIANTS
from core.domain.variants.checks import VariantError
from core.training.losses.objective import build_objective, build_unpaired_objective
from core.training.losses.registry import PAIR_LOSSES, UNPAIRED_LOSSES
from core.training.losses.values import PairLogps, ResponseLogps

PAIRED = [variant.name for variant in VARIANTS.values() if variant.data == "preference"]
UNPAIRED = [variant.name for variant in VARIANTS.values() if variant.data == "unpaired"]


def response(sums: list[float], num_tokens: list[int], *, with_weights: bool = True) -> ResponseLogps:
    values = torch.tensor(sums)
    return ResponseLogps(
        sums=values,
        num_tokens=torch.tensor(num_tokens),
        prefix_sums=values / 2,
        log_weights=torch.full_like(values, -0.5) if with_weights else None,
    )


def some_pairs(offset: float = 0.0) -> PairLogps:
    return PairLogps(
        chosen=response([-31.0 + offset, -12.0, -7.0 - offset], [10, 8, 3]),
        rejected=response([-36.0, -9.0 + offset, -20.0], [12, 2, 9]),
    )


def test_losses_and_registry_hold_the_same_variants() -> None:
    assert set(PAIR_LOSSES) == set(PAIRED)
    assert set(UNPAIRED_LOSSES) == set(UNPAIRED)


@pytest.mark.parametrize("variant", PAIRED)
def test_needs_a_reference_exactly_when_the_registry_says_so(variant: str) -> None:
    objective = build_objective(variant, VARIANTS[variant].default_beta, {})
    assert objective.needs_reference == VARIANTS[variant].needs_reference
    if objective.needs_reference:
        with pytest.raises(ValueError, match="needs the reference"):
            objective(some_pairs(), None)
        near, far = objective(some_pairs(), some_pairs(1.0)), objective(some_pairs(), some_pairs(4.0))
        assert not torch.equal(near.losses, far.losses)
    else:
        without, given = objective(some_pairs(), None), objective(some_pairs(), some_pairs(1.0))
        assert torch.equal(without.losses, given.losses)
        assert torch.equal(without.chosen_rewards, given.chosen_rewards)


@pytest.mark.parametrize("variant", PAIRED)
def test_one_float32_loss_per_pair_with_graph_and_detached_rewards(variant: str) -> None:
    policy = some_pairs()
    chosen = dataclasses.replace(policy.chosen, sums=policy.chosen.sums.requires_grad_())
    result = build_objective(variant, 0.1, {})(PairLogps(chosen, policy.rejected), some_pairs(1.0))
    for tensor in (result.losses, result.chosen_rewards, result.rejected_rewards):
        assert tensor.shape == (3,)
        assert tensor.dtype == torch.float32
    assert result.losses.requires_grad
    assert not result.chosen_rewards.requires_grad
    assert not result.rejected_rewards.requires_grad


@pytest.mark.parametrize("variant", [name for name in PAIRED if VARIANTS[name].needs_reference])
def test_no_gradient_reaches_the_reference(variant: str) -> None:
    sums = torch.tensor([-30.0, -11.0, -7.5], requires_grad=True)
    anchor = some_pairs(1.0)
    policy_sums = torch.tensor([-31.0, -12.0, -7.0], requires_grad=True)
    policy = some_pairs()
    result = build_objective(variant, 0.1, {})(
        PairLogps(dataclasses.replace(policy.chosen, sums=policy_sums), policy.rejected),
        PairLogps(dataclasses.replace(anchor.chosen, sums=sums, prefix_sums=sums / 2), anchor.rejected),
    )
    result.losses.sum().backward()
    assert policy_sums.grad is not None
    assert sums.grad is None


@pytest.mark.parametrize("variant", [name for name in PAIRED if name != "aot"])
def test_each_loss_depends_on_its_own_pair_alone(variant: str) -> None:
    objective = build_objective(variant, VARIANTS[variant].default_beta, {})
    assert not objective.is_batch_level

    def row(logps: ResponseLogps, index: int) -> ResponseLogps:
        assert logps.log_weights is not None
        keep = slice(index, index + 1)
        return ResponseLogps(logps.sums[keep], logps.num_tokens[keep], logps.prefix_sums[keep], logps.log_weights[keep])

    policy, reference = some_pairs(), some_pairs(1.0)
    together = objective(policy, reference).losses
    for index in range(3):
        alone = objective(
            PairLogps(row(policy.chosen, index), row(policy.rejected, index)),
            PairLogps(row(reference.chosen, index), row(reference.rejected, index)),
        )
        assert torch.equal(alone.losses[0], together[index])


def test_flags_tell_the_engine_what_to_compute() -> None:
    flags = {
        name: (objective.needs_token_weights, objective.needs_prefix_sums, objective.is_batch_level)
        for name, objective in ((name, build_objective(name, 0.1, {})) for name in PAIRED)
    }
    assert flags.pop("wpo") == (True, False, False)
    assert flags.pop("ld_dpo") == (False, True, False)
    assert flags.pop("aot") == (False, False, True)
    assert set(flags.values()) == {(False, False, False)}
    assert [name for name in PAIRED if build_objective(name, 0.1, {}).compares_lists] == ["plackett_luce"]


@pytest.mark.parametrize("variant", PAIRED)
def test_what_a_flag_does_not_ask_for_is_not_looked_at(variant: str) -> None:
    objective = build_objective(variant, 0.1, {})

    def spoil(logps: ResponseLogps) -> ResponseLogps:
        return dataclasses.replace(
            logps,
            prefix_sums=logps.prefix_sums if objective.needs_prefix_sums else logps.prefix_sums * float("nan"),
            log_weights=logps.log_weights if objective.needs_token_weights else None,
        )

    policy, reference = some_pairs(), some_pairs(1.0)
    spoilt = objective(
        PairLogps(spoil(policy.chosen), spoil(policy.rejected)),
        PairLogps(spoil(reference.chosen), spoil(reference.rejected)),
    )
    assert torch.equal(spoilt.losses, objective(policy, reference).losses)


def test_wpo_without_token_weights_says_so() -> None:
    bare = PairLogps(response([-3.0], [3], with_weights=False), response([-4.0], [3], with_weights=False))
    with pytest.raises(ValueError, match="log_weights"):
        build_objective("wpo", 0.1, {})(bare, bare)


def test_options_and_beta_are_checked_when_bound() -> None:
    with pytest.raises(VariantError, match="no effect with `dpo`"):
        build_objective("dpo", 0.1, {"label_smoothing": 0.1})
    with pytest.raises(VariantError) as caught:
        build_objective("dpo", float("nan"), {})
    assert caught.value.field == "beta"
    with pytest.raises(VariantError, match="not a variant"):
        build_objective("ppo", 0.1, {})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_probabilities_below_float32_are_refused(dtype: torch.dtype) -> None:
    coarse, fine, counts = torch.tensor([-3.0], dtype=dtype), torch.tensor([-3.0]), torch.tensor([3])
    for sums, prefix_sums, log_weights in ((coarse, fine, None), (fine, coarse, None), (fine, fine, coarse)):
        with pytest.raises(TypeError, match="float32"):
            ResponseLogps(sums, counts, prefix_sums, log_weights)


def test_malformed_log_probabilities_are_refused() -> None:
    fine, counts = torch.tensor([-3.0]), torch.tensor([3])
    with pytest.raises(TypeError, match="int64"):
        ResponseLogps(fine, torch.tensor([3.0]), fine)
    with pytest.raises(ValueError, match="one value per row"):
        ResponseLogps(torch.tensor([-3.0, -4.0]), counts, fine)
    with pytest.raises(ValueError, match="one value per row"):
        ResponseLogps(fine[None], counts[None], fine[None])


def test_unpaired_variants_have_their_own_objective() -> None:
    with pytest.raises(VariantError, match="not from pairs"):
        build_objective("kto", 0.1, {})
    with pytest.raises(VariantError, match="learns from pairs"):
        build_unpaired_objective("dpo", 0.1, {})
    assert build_unpaired_objective("kto", 0.1, {}).is_unpaired
    assert not build_objective("dpo", 0.1, {}).is_unpaired


def test_kto_does_not_depend_on_how_a_step_is_cut() -> None:
    objective = build_unpaired_objective("kto", 0.1, {"desirable_weight": 1.5})
    policy = torch.tensor([-3.0, -9.0, -4.0, -6.0])
    reference = torch.tensor([-4.0, -8.0, -4.5, -7.0])
    labels = torch.tensor([True, False, True, False])
    kl = objective.kl(policy + 2, reference)
    whole = objective(policy, reference, labels, kl).losses
    halves = [objective(policy[s], reference[s], labels[s], kl).losses for s in (slice(0, 2), slice(2, 4))]
    assert torch.equal(whole, torch.cat(halves))
