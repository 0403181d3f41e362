import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.selection import boundary, keep_largest


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
