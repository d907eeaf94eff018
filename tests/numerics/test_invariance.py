"""A pair has the same log-probabilities alone, in a batch, packed, shared, and by transformers itself.

Covers T2 (dropout), T5 (cached reference, live part), T6 (float32 sums), T7 (padding), T8 (off by one), T11 (counts).
"""

from pathlib import Path

import pytest
import torch
from packed_rows import (
    NOT_PACKABLE,
    PROMISED,
    VOCABULARY,
    WITH_OWN_HEAD_OR_SCORES,
    Row,
    make_model,
    make_stock_model,
    random_rows,
    stock_sums,
    stock_token_logps,
    write_rows,
)

from core.training.data import prefix_sharing
from core.training.data.packing import PackedBatch, pack_pairs, pack_responses
from core.training.losses.values import PairLogps
from core.training.model.capabilities import capabilities_of
from core.training.model.logps import (
    TokenLogps,
    pair_logps,
    reduce_pairs,
    response_logps,
    token_logps,
)

ALL = (*PROMISED, *WITH_OWN_HEAD_OR_SCORES, *NOT_PACKABLE)
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_sharing, "MIN_SHARED_TOKENS", 10**9)


def is_shared(batch: PackedBatch) -> bool:
    return any(segment.prefix_length for segment in batch.layout.segments)


def assert_same(actual: PairLogps, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.chosen.sums, chosen, **TOLERANCE)
    torch.testing.assert_close(actual.rejected.sums, rejected, **TOLERANCE)


@pytest.mark.parametrize("architecture", ALL)
def test_packed_pairs_score_as_transformers_scores_each_response(architecture: str, tmp_path: Path) -> None:
    rows = random_rows()
    batch = pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu")
    assert is_shared(batch)
    stock = make_stock_model(architecture).eval()
    with torch.no_grad():
        packed = pair_logps(make_model(architecture), batch)
        assert_same(packed, stock_sums(stock, rows, 0), stock_sums(stock, rows, 1))


@pytest.mark.parametrize("architecture", ALL)
def test_alone_batched_shared_and_unshared_agree(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows()
    data = write_rows(tmp_path, rows)
    model = make_model(architecture)
    with torch.no_grad():
        together = pair_logps(model, pack_pairs(data, range(len(rows)), "cpu"))
        alone = [pair_logps(model, pack_pairs(data, [index], "cpu")) for index in range(len(rows))]
        backwards = pair_logps(model, pack_pairs(data, range(len(rows) - 1, -1, -1), "cpu"))
        chosen = response_logps(model, pack_responses(data, range(len(rows)), "cpu", side="chosen"))
        rejected = response_logps(model, pack_responses(data, range(len(rows)), "cpu", side="rejected"))
        unshared(monkeypatch)
        batch = pack_pairs(data, range(len(rows)), "cpu")
        assert not is_shared(batch)
        separate = pair_logps(model, batch)
    assert_same(together, torch.cat([p.chosen.sums for p in alone]), torch.cat([p.rejected.sums for p in alone]))
    assert_same(together, backwards.chosen.sums.flip(0), backwards.rejected.sums.flip(0))
    assert_same(together, chosen.sums, rejected.sums)
    assert_same(together, separate.chosen.sums, separate.rejected.sums)


@pytest.mark.parametrize("architecture", [*PROMISED, *WITH_OWN_HEAD_OR_SCORES])
def test_promised_architectures_are_packed(architecture: str) -> None:
    capabilities = capabilities_of(make_model(architecture))
    assert capabilities.is_packable
    assert capabilities.head is not None


@pytest.mark.parametrize("architecture", NOT_PACKABLE)
def test_models_without_the_attention_interface_run_one_sequence_at_a_time(architecture: str) -> None:
    assert not capabilities_of(make_model(architecture)).is_packable


def test_a_model_whose_logits_the_engine_does_not_know_keeps_its_own_head(tmp_path: Path) -> None:
    rows = random_rows()
    model = make_model("granite")
    object.__setattr__(capabilities_of(model), "head", None)
    with torch.no_grad():
        packed = pair_logps(model, pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu"))
        stock = make_stock_model("granite").eval()
        assert_same(packed, stock_sums(stock, rows, 0), stock_sums(stock, rows, 1))


@pytest.mark.parametrize("architecture", ALL)
def test_gradients_equal_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    rows = random_rows()[:4]
    model, stock = make_model(architecture), make_stock_model(architecture).eval()
    logps = pair_logps(model, pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu"))
    weights = torch.arange(1.0, 5.0)
    ((logps.chosen.sums - 0.5 * logps.rejected.sums) * weights).sum().backward()
    ((stock_sums(stock, rows, 0) - 0.5 * stock_sums(stock, rows, 1)) * weights).sum().backward()
    expected = dict(stock.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = expected[name].grad
        assert (parameter.grad is None) == (gradient is None), name
        if gradient is not None:
            scale = float(gradient.abs().max()) + 1e-6
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("architecture", ALL)
def test_no_dropout_in_training_mode(architecture: str, tmp_path: Path) -> None:
    rows = random_rows()
    batch = pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu")
    model = make_model(architecture)
    with torch.no_grad():
        evaluated = pair_logps(model.eval(), batch)
        trained = [pair_logps(model.train(), batch) for _ in range(2)]
    for logps in trained:
        assert torch.equal(logps.chosen.sums, evaluated.chosen.sums)
        assert torch.equal(logps.rejected.sums, evaluated.rejected.sums)


@pytest.mark.parametrize("architecture", PROMISED)
def test_stock_dropout_would_have_shown(architecture: str) -> None:
    """The configurations of these tests do drop something: otherwise the test above would prove nothing."""
    stock, row = make_stock_model(architecture), random_rows()[0]
    with torch.no_grad():
        evaluated = stock_sums(stock.eval(), [row], 0)
        trained = stock_sums(stock.train(), [row], 0)
    assert not torch.allclose(evaluated, trained, atol=1e-3)


def test_the_same_batch_gives_the_same_bits(tmp_path: Path) -> None:
    rows = random_rows()
    batch = pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu")
    model = make_model("llama")
    results = []
    for _ in range(2):
        model.zero_grad()
        logps = pair_logps(model, batch)
        (logps.chosen.sums - logps.rejected.sums).sum().backward()
        results.append([logps.chosen.sums.detach(), *[p.grad.clone() for p in model.parameters()]])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_every_scored_token_is_predicted_by_the_one_before_it(tmp_path: Path) -> None:
    """T8: also the first one of a rejected response, whose predecessor is the shared prompt's last token."""
    rows: list[Row] = [([5, 6, 7, 8, 9], [10, 11, 1], [20, 21, 22, 1]), ([30, 31, 32, 33], [40, 1], [50, 1])]
    batch = pack_pairs(write_rows(tmp_path, rows), [0, 1], "cpu")
    assert is_shared(batch)
    ids = batch.input_ids[0]
    assert ids[batch.hidden_rows].tolist() == [9, 10, 11, 33, 40, 9, 20, 21, 22, 33, 50]
    assert batch.targets.tolist() == [10, 11, 1, 40, 1, 20, 21, 22, 1, 50, 1]
    assert batch.num_scored_tokens.tolist() == [3, 2, 4, 2]
    stock = make_stock_model("llama").eval()
    with torch.no_grad():
        values = token_logps(make_model("llama"), batch).values
        pieces = [stock_token_logps(stock, rows[i][0], rows[i][side]) for side in (1, 2) for i in (0, 1)]
    torch.testing.assert_close(values, torch.cat(pieces), **TOLERANCE)


def test_unscored_tokens_are_context_but_do_not_count(tmp_path: Path) -> None:
    rows = random_rows()[:1]
    data = write_rows(tmp_path, rows, unscored={(0, 0, 0), (0, 0, 2), (0, 1, 6)})
    stock = make_stock_model("qwen2").eval()
    with torch.no_grad():
        logps = pair_logps(make_model("qwen2"), pack_pairs(data, [0], "cpu"))
        first, second = (stock_token_logps(stock, rows[0][0], rows[0][side]) for side in (1, 2))
    assert (logps.chosen.num_tokens.item(), logps.rejected.num_tokens.item()) == (3, 6)
    assert_same(logps, first[[1, 3, 4]].sum()[None], second[:6].sum()[None])


def test_prefix_sums_count_the_scored_tokens_both_responses_have(tmp_path: Path) -> None:
    """LD-DPO's S over the first min(|y_w|, |y_l|) scored tokens, for chosen and rejected alike."""
    rows = random_rows()[:2]  # lengths (5, 7) and (4, 2)
    data = write_rows(tmp_path, rows, unscored={(0, 1, 1)})
    stock = make_stock_model("llama").eval()
    with torch.no_grad():
        logps = pair_logps(make_model("llama"), pack_pairs(data, [0, 1], "cpu"), needs_prefix_sums=True)
        tokens = [[stock_token_logps(stock, row[0], row[side]) for side in (1, 2)] for row in rows]
    chosen = torch.stack([tokens[0][0].sum(), tokens[1][0][:2].sum()])
    rejected = torch.stack([tokens[0][1][[0, 2, 3, 4, 5]].sum(), tokens[1][1].sum()])
    torch.testing.assert_close(logps.chosen.prefix_sums, chosen, **TOLERANCE)
    torch.testing.assert_close(logps.rejected.prefix_sums, rejected, **TOLERANCE)


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_token_weights_compare_with_the_whole_vocabulary(architecture: str, tmp_path: Path) -> None:
    """WPO: mean over t of log p_t - log(sum over v of p_v²)."""
    rows = random_rows()[:3]
    batch = pack_pairs(write_rows(tmp_path, rows), range(3), "cpu")
    logps = pair_logps(make_model(architecture), batch, needs_token_weights=True)
    assert logps.rejected.log_weights is not None
    assert not logps.rejected.log_weights.requires_grad
    stock = make_stock_model(architecture).eval()
    for index, (prompt, _, response) in enumerate(rows):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *response]])
            probabilities = stock(input_ids=ids, use_cache=False).logits[0].double().softmax(-1)[len(prompt) - 1 : -1]
        taken = probabilities[range(len(response)), list(response)]
        expected = (taken.log() - probabilities.square().sum(-1).log()).mean()
        assert logps.rejected.log_weights[index].item() == pytest.approx(expected.item(), abs=1e-4)


def test_cached_token_logps_reduce_to_the_same_pairs(tmp_path: Path) -> None:
    """T5: a reference kept per token and gathered for another micro-batch equals a live forward pass."""
    rows = random_rows()
    data = write_rows(tmp_path, rows)
    model = make_model("mistral")
    cache = {}
    with torch.no_grad():
        for index in range(len(rows)):
            batch = pack_pairs(data, [index], "cpu")
            cache[index] = token_logps(model, batch).values.split(list(batch.scored_counts))
        batch = pack_pairs(data, [4, 0, 3], "cpu")
        live = pair_logps(model, batch, needs_prefix_sums=True)
        tokens = torch.cat([cache[index][side] for side in (0, 1) for index in batch.indices])
        cached = reduce_pairs(TokenLogps(tokens, tokens > -1), batch, needs_prefix_sums=True)
    for side in ("chosen", "rejected"):
        torch.testing.assert_close(getattr(cached, side).sums, getattr(live, side).sums, **TOLERANCE)
        torch.testing.assert_close(getattr(cached, side).prefix_sums, getattr(live, side).prefix_sums, **TOLERANCE)


def test_an_empty_prompt_leaves_the_first_token_unscored(tmp_path: Path) -> None:
    rows: list[Row] = [([], [5, 6, 7], [8, 9]), random_rows()[0]]
    stock = make_stock_model("gpt2").eval()
    with torch.no_grad():
        logps = pair_logps(make_model("gpt2"), pack_pairs(write_rows(tmp_path, rows), [0, 1], "cpu"))
        first = stock_token_logps(stock, [5], [6, 7]).sum()
        second = stock_token_logps(stock, [8], [9]).sum()
    assert logps.chosen.num_tokens.tolist() == [2, 5]
    assert logps.rejected.num_tokens.tolist() == [1, 7]
    torch.testing.assert_close(logps.chosen.sums[0], first, **TOLERANCE)
    torch.testing.assert_close(logps.rejected.sums[0], second, **TOLERANCE)


@pytest.mark.parametrize("architecture", PROMISED)
def test_bf16_stays_near_float32(architecture: str, tmp_path: Path) -> None:
    """T6: sums of log-probabilities are formed in float32, so the error does not grow with the sum."""
    rows = random_rows()
    batch = pack_pairs(write_rows(tmp_path, rows), range(len(rows)), "cpu")
    stock = make_stock_model(architecture, tie_word_embeddings=True)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.div_(8)
        reduced = make_model(architecture, tie_word_embeddings=True)
        for parameter in reduced.parameters():
            parameter.div_(8)
        exact = pair_logps(reduced, batch)
        rough = pair_logps(reduced.to(torch.bfloat16), batch)
    assert rough.chosen.sums.dtype == torch.float32
    per_token = (rough.chosen.sums - exact.chosen.sums).abs() / exact.chosen.num_tokens
    assert per_token.max() < 0.02


def test_a_prompt_is_shared_only_where_it_pays(tmp_path: Path) -> None:
    rows: list[Row] = [([5], [6, 7], [8, 9]), ([5] * 20, [6, 7], [8, 9])]
    data = write_rows(tmp_path, rows)
    assert not is_shared(pack_pairs(data, [0], "cpu"))
    assert pack_pairs(data, [0], "cpu").num_tokens == 6
    assert is_shared(pack_pairs(data, [1], "cpu"))
    assert pack_pairs(data, [1], "cpu").num_tokens == 24


def test_sequences_of_one_row_do_not_see_each_other(tmp_path: Path) -> None:
    rows = random_rows()
    changed = [*rows[:2], tuple([(token + 1) % VOCABULARY for token in part] for part in rows[2]), *rows[3:]]
    model = make_model("llama")
    with torch.no_grad():
        before, after = (
            pair_logps(model, pack_pairs(write_rows(tmp_path / name, r), range(len(rows)), "cpu"))
            for name, r in (("before", rows), ("after", changed))
        )
    others = [index for index in range(len(rows)) if index != 2]
    assert torch.equal(before.chosen.sums[others], after.chosen.sums[others])
    assert not torch.equal(before.chosen.sums[2], after.chosen.sums[2])
