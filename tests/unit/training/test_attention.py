from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core.training.kernels import attention_plan
from core.training.kernels.attention_plan import BlockPlan, Segment
from core.training.kernels.block_attention import ScoreOptions
from core.training.kernels.packed_attention import AttentionLayout, LayoutNotDelivered, packed_attention
from core.training.kernels.varlen_attention import can_use_varlen, plan_varlen

SEGMENTS = (
    Segment(start=0, end=9),
    Segment(start=9, end=13, prefix=((0, 6),)),
    Segment(start=13, end=14),
    Segment(start=14, end=21),
    Segment(start=21, end=22, prefix=((14, 20),)),
    Segment(start=22, end=26, prefix=((0, 6), (9, 12))),
    Segment(start=26, end=29, prefix=((0, 6), (9, 12), (22, 24))),
)
T, N, K, D = 29, 4, 2, 8


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, T, D, generator=generator).requires_grad_() for heads in (N, K, K))  # type: ignore[return-value]


def dense_mask(sliding_window: int | None) -> Tensor:
    """[T, T] from the words of the module: own segment up to itself, and the prefix; windows count the sequence."""
    mask = torch.zeros(T, T, dtype=torch.bool)
    for segment in SEGMENTS:
        spans = (*segment.prefix, (segment.start, segment.end))
        seen = [key for span in spans for key in range(*span)]
        for query in range(segment.start, segment.end):
            visible = [key for key in seen if key <= query]
            mask[query, visible[-sliding_window:] if sliding_window else visible] = True
    return mask


def dense_attention(query: Tensor, key: Tensor, value: Tensor, options: ScoreOptions) -> Tensor:
    key, value = (tensor.repeat_interleave(N // K, 1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (options.scaling or D**-0.5)
    if options.softcap:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    scores = scores.masked_fill(~dense_mask(options.sliding_window), float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("sliding_window", [None, 1, 3, 100])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(
    ("query_rows", "joined_tokens", "kept_scores"), [(128, 256, 2**16), (3, 0, 2**16), (3, 10, 12), (1, 0, 0)]
)
def test_segments_attend_as_one_dense_mask_says(
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    query_rows: int,
    joined_tokens: int,
    kept_scores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However it is cut into blocks, and whether a block keeps its probabilities or not."""
    monkeypatch.setattr(attention_plan, "QUERY_ROWS", query_rows)
    monkeypatch.setattr(attention_plan, "JOINED_TOKENS", joined_tokens)
    monkeypatch.setattr(attention_plan, "KEPT_SCORES", kept_scores)
    inputs = tensors()
    options = ScoreOptions(scaling=scaling, sliding_window=sliding_window, softcap=softcap)
    actual, _ = packed_attention(
        torch.nn.Module(),
        *inputs,
        None,
        scaling=scaling,
        sliding_window=sliding_window,
        softcap=softcap,
        packed_layout=AttentionLayout(segments=SEGMENTS),
    )
    expected = dense_attention(*inputs, options)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(actual, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_block_takes_no_key_that_its_window_hides() -> None:
    long = Segment(start=10, end=1010)
    assert max(block.num_keys for block in BlockPlan([long], 100).blocks) == 125 + 99
    shared = Segment(start=1010, end=1020, prefix=((10, 1010),))
    assert [block.ranges for block in BlockPlan([shared], 5).blocks] == [[slice(1006, 1010), slice(1010, 1020)]]
    assert sum(block.num_queries for block in BlockPlan([long, shared], None).blocks) == 1010
    branch = Segment(start=1020, end=1030, prefix=((10, 1010), (1010, 1013)))
    assert [block.ranges for block in BlockPlan([branch], 8).blocks] == [
        [slice(1006, 1010), slice(1010, 1013), slice(1020, 1030)]
    ]


def test_a_short_tree_is_one_block() -> None:
    assert [block.num_queries for block in BlockPlan(SEGMENTS, None).blocks] == [13, 1, 8, 4, 3]
    tree = (*SEGMENTS[:2], Segment(start=13, end=17, prefix=((0, 6), (9, 12))))
    assert [block.num_queries for block in BlockPlan(tree, None).blocks] == [17]


def test_the_kernels_plan_gathers_the_keys_that_segments_see() -> None:
    """What the CUDA kernel computes of the plan, in plain steps: causal to the end of each segment's keys."""
    query, key, value = (tensor.detach()[0].transpose(0, 1) for tensor in tensors())
    plan = plan_varlen(SEGMENTS, "cpu")
    assert plan.key_places is not None
    keys, values = key[plan.key_places], value[plan.key_places]
    outputs = []
    for index in range(len(SEGMENTS)):
        queries = query[plan.query_ends[index] : plan.query_ends[index + 1]]
        span = slice(int(plan.key_ends[index]), int(plan.key_ends[index + 1]))
        own_keys, own_values = (x[span].repeat_interleave(N // K, 1) for x in (keys, values))
        scores = torch.einsum("qnd,knd->nqk", queries, own_keys) * D**-0.5
        last = torch.ones(scores.shape[1:], dtype=torch.bool).tril(scores.shape[2] - scores.shape[1])
        outputs.append(torch.einsum("nqk,knd->qnd", scores.masked_fill(~last, float("-inf")).softmax(-1), own_values))
    with torch.no_grad():
        expected = dense_attention(*tensors(), ScoreOptions())[0]
    torch.testing.assert_close(torch.cat(outputs), expected)
    assert (plan.longest_query, plan.longest_key) == (9, 14)
    assert plan.query_ends.dtype == plan.key_ends.dtype == torch.int32


def test_without_prefixes_no_key_is_gathered() -> None:
    assert plan_varlen((Segment(start=0, end=3), Segment(start=3, end=4)), "cpu").key_places is None


def test_the_kernel_is_for_cuda_only() -> None:
    query = torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    assert not can_use_varlen(query, query, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"packed_layout": None},
        {"attention_mask": torch.ones(1, 1, T, T)},
        {"dropout": 0.1},
        {"s_aux": torch.ones(N)},
        {"position_bias": torch.ones(1)},
    ],
)
def test_what_it_does_not_compute_is_refused(arguments: dict[str, object]) -> None:
    query, key, value = tensors()
    call: Callable[..., object] = packed_attention
    with pytest.raises(LayoutNotDelivered):
        call(
            torch.nn.Module(),
            query,
            key,
            value,
            **({"attention_mask": None, "packed_layout": AttentionLayout(segments=SEGMENTS)} | arguments),
        )
