import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.selection import WarmBoundary, boundary, keep_largest


def test_boundary_by_hand():
    values = torch.tensor([[3.0, 1.0, 2.0, 4.0], [5.0, 5.0, 0.0, 5.0]])
    lower, upper = boundary(values, 2)
    assert lower.tolist() == [[2.0], [5.0]]
    assert upper.tolist() == [[3.0], [5.0]]


@pytest.mark.parametrize("k", [0, 4])
def test_boundary_needs_both_sides(k):
    with pytest.raises(ValueError, match="cannot split 4 units"):
        boundary(torch.ones(1, 4), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_boundary_agrees_with_sorting(dtype):
    values = torch.randn(3, 257, generator=torch.Generator().manual_seed(0)).abs().to(dtype)
    ordered = values.sort(dim=1).values
    for k in (1, 100, 256):
        lower, upper = boundary(values, k)
        assert torch.equal(lower[:, 0], ordered[:, k - 1])
        assert torch.equal(upper[:, 0], ordered[:, k])


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("jump", [0.0, 0.001, 0.5])
def test_a_warm_start_is_exact_however_the_values_move(dtype, jump):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 5000, generator=generator).to(dtype)
    warm = WarmBoundary()
    for step in range(40):
        k = 1 + 100 * step
        assert [edge.tolist() for edge in warm(values, k)] == [edge.tolist() for edge in boundary(values, k)]
        values = (values * (1 + jump * torch.randn(1, 5000, generator=generator).to(dtype))).abs()


def test_a_warm_start_with_ties_zeros_and_all_equal_values():
    warm = WarmBoundary()
    for values in (torch.zeros(1, 10), torch.ones(1, 10), torch.tensor([[0.0] * 5 + [1.0] * 5]), torch.zeros(1, 10)):
        for k in (1, 5, 9):
            assert [edge.tolist() for edge in warm(values, k)] == [edge.tolist() for edge in boundary(values, k)]


def test_a_warm_start_orders_the_band_only(monkeypatch):
    import numpy as np

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
    assert max(sizes[8:]) < 3000
