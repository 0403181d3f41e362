import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp import selection
from pruneexp.selection import WarmBoundary, boundary, in_memory_order, keep_largest

SELECTIONS = (boundary, selection._boundary_of_topk)  # the second is what a GPU runs


def test_boundary_by_hand():
    values = torch.tensor([[3.0, 1.0, 2.0, 4.0], [5.0, 5.0, 0.0, 5.0]])
    lower, upper = boundary(values, 2)
    assert lower.tolist() == [[2.0], [5.0]]
    assert upper.tolist() == [[3.0], [5.0]]


@pytest.mark.parametrize("k", [0, 4])
def test_boundary_needs_both_sides(k):
    with pytest.raises(ValueError, match="cannot split 4 units"):
        boundary(torch.ones(1, 4), k)


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_boundary_agrees_with_sorting(dtype, select):
    values = torch.randn(3, 257, generator=torch.Generator().manual_seed(0)).abs().to(dtype)
    ordered = values.sort(dim=1).values
    for k in (1, 2, 100, 128, 129, 255, 256):
        lower, upper = select(values, k)
        assert lower.shape == upper.shape == (3, 1)
        assert lower.dtype == upper.dtype == dtype
        assert torch.equal(lower[:, 0], ordered[:, k - 1])
        assert torch.equal(upper[:, 0], ordered[:, k])


@pytest.mark.parametrize("select", SELECTIONS)
@given(row=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=12), data=st.data())
def test_boundary_among_ties(select, row, data):
    k = data.draw(st.integers(1, len(row) - 1))
    lower, upper = select(torch.tensor([row]), k)
    assert [lower.item(), upper.item()] == sorted(row)[k - 1 : k + 1]


@pytest.mark.parametrize("select", SELECTIONS)
def test_nan_counts_as_the_largest(select):
    values = torch.tensor([[float("nan"), 1.0, 2.0, 3.0]])
    assert [edge.item() for edge in select(values, 2)] == [2.0, 3.0]
    assert select(values, 3)[1].isnan()


def test_memory_order_is_a_view_without_gaps():
    weight = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    for dense in (
        weight,
        weight.contiguous(memory_format=torch.channels_last),
        weight.permute(3, 1, 0, 2),
        weight.permute(3, 2, 1, 0),
    ):
        flat = in_memory_order(dense).reshape(-1)
        assert flat.data_ptr() == dense.data_ptr()
        assert torch.equal(flat.sort().values, weight.flatten())
    assert in_memory_order(weight[:, ::2]).reshape(-1).sort().values.tolist() == weight[:, ::2].flatten().tolist()


def test_ties_keep_the_smaller_index():
    values = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert keep_largest(values, 3).tolist() == [[True, False, False, False]]
    assert keep_largest(torch.tensor([[2.0, 1.0, 3.0, 1.0, 1.0]]), 2).tolist() == [[True, True, True, False, False]]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=40), st.data())
def test_exact_count_and_no_pruned_value_above_a_kept_one(row, data):
    k = data.draw(st.integers(0, len(row)))
    values = torch.tensor([row])
    keep = keep_largest(values, k)
    assert int((~keep).sum()) == k
    if 0 < k < len(row):
        assert values[~keep].max() <= values[keep].min()


def same(warm, values, k):
    """Whether a warm start gives what a full selection from the magnitudes gives; NaN equals NaN."""
    found, wanted = torch.cat(warm(values, k)), torch.cat(boundary(values.abs(), k))
    return found.shape == wanted.shape and torch.equal(found.nan_to_num(nan=-1), wanted.nan_to_num(nan=-1))


@pytest.mark.parametrize("block", [1000, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("jump", [0.0, 0.001, 0.5])
def test_a_warm_start_is_exact_however_the_values_move(dtype, jump, block, monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(1, 5000, generator=generator) - 0.5).to(dtype)
    warm = WarmBoundary()
    for step in range(40):
        assert same(warm, values, 1 + 100 * step)
        values = values * (1 + jump * torch.randn(1, 5000, generator=generator).to(dtype))


@given(
    rows=st.lists(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0]), min_size=6, max_size=6), max_size=8),
    k=st.integers(1, 5),
)
def test_a_warm_start_is_exact_for_any_few_values(rows, k):
    warm = WarmBoundary()
    for row in rows:
        assert same(warm, torch.tensor([row]), k)


def test_a_warm_start_counts_nan_as_the_largest():
    values = torch.linspace(-1, 1, 1000).view(1, -1)
    warm = WarmBoundary()
    assert same(warm, values, 900)
    values[0, 500] = float("nan")  # was among the smallest
    assert same(warm, values, 900)
    values[0, 400:600] = float("nan")
    assert same(warm, values, 900)
    assert same(warm, values.nan_to_num(nan=0.1), 900)


def test_a_warm_start_with_several_rows_selects_in_each():
    assert [edge.tolist() for edge in WarmBoundary()(torch.tensor([[3.0, -1.0, 2.0], [0.0, -5.0, 4.0]]), 1)] == [
        [[1.0], [0.0]],
        [[2.0], [4.0]],
    ]


def test_a_warm_start_with_ties_zeros_and_all_equal_values():
    warm = WarmBoundary()
    for values in (torch.zeros(1, 10), torch.ones(1, 10), torch.tensor([[0.0] * 5 + [1.0] * 5]), torch.zeros(1, 10)):
        for k in (1, 5, 9):
            assert same(warm, values, k)


def test_a_warm_start_orders_the_band_only(monkeypatch):
    values = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0))
    warm = WarmBoundary()
    sizes = []
    partition = np.partition
    monkeypatch.setattr(
        np, "partition", lambda a, *args, **named: (sizes.append(a.size), partition(a, *args, **named))[1]
    )
    for _ in range(12):
        warm(values, 90_000)
        values = values * 1.0001
    assert sizes[0] == 100_000
    assert max(sizes[1:]) < 3000
    assert max(sizes[8:]) < 600  # ten times 0.0001 on both sides of the threshold is 0.2 % of the values


def test_the_band_follows_a_jump():
    values = torch.rand(1, 10_000, generator=torch.Generator().manual_seed(0))
    warm = WarmBoundary()
    for scale in (1.0, 1.0001, 2.0):
        warm(values * scale, 9000)
    assert warm.width == 0.5
    for _ in range(100):
        warm(values, 9000)
    assert warm.width == 1e-3
