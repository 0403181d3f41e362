"""N:M groups."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.patterns import NM, TensorGroup


def nm(n, m, axis="input", indivisible="dense"):
    return NM(n=n, m=m, axis=axis, indivisible=indivisible)


def mask_of(pattern, scores, sparsity):
    group = TensorGroup("w", scores.shape, pattern)
    return group.masks(group.keep({"w": scores}, sparsity))["w"]


def test_groups_along_input_channels_by_hand():
    scores = torch.tensor([[1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]])
    assert mask_of(nm(2, 4), scores, 0.5).tolist() == [[False, True, False, True, True, True, False, False]]


def test_convolutions_group_input_channels_at_each_place_of_the_kernel():
    scores = torch.rand(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = mask_of(nm(1, 4), scores, 0.75)
    assert torch.equal(mask.sum(dim=1), torch.ones(3, 2, 2, dtype=torch.int64))
    assert torch.equal(mask.int().argmax(dim=1), scores.argmax(dim=1))


def test_memory_order_groups_along_the_kernel():
    scores = torch.arange(16.0).view(1, 4, 2, 2)
    mask = mask_of(nm(1, 4, axis="memory"), scores, 0.75)
    assert mask.flatten().tolist() == [False, False, False, True] * 4


def test_layers_that_do_not_divide_stay_dense_or_are_padded():
    assert not nm(2, 4).fits(torch.Size([5, 6]))
    assert nm(2, 4).fits(torch.Size([5, 8]))
    assert nm(2, 4, indivisible="pad").fits(torch.Size([5, 6]))
    mask = mask_of(nm(1, 4, indivisible="pad"), torch.tensor([[4.0, 3.0, 2.0, 1.0, 6.0, 5.0]]), 0.75)
    assert mask.tolist() == [[True, False, False, False, True, False]]
    zeros = mask_of(nm(1, 4, indivisible="pad"), torch.zeros(1, 6), 0.75)
    assert zeros.tolist() == [[True, False, False, False, True, False]]  # padding is pruned first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0, "m": 4}, "pattern.n=0, pattern.m=4"),
        ({"n": 5, "m": 4}, "pattern.n=5, pattern.m=4"),
        ({"n": 2, "m": 4, "axis": "output"}, "pattern.axis=output"),
        ({"n": 2, "m": 4, "indivisible": "skip"}, "pattern.indivisible=skip"),
    ],
)
def test_impossible_values_are_named(arguments, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        nm(**arguments)


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(["input", "memory"]),
    st.data(),
)
def test_exactly_n_of_every_full_group(outputs, groups, m, kernel, axis, data):
    n = data.draw(st.integers(1, m))
    scores = torch.rand(outputs, groups * m, kernel, kernel)
    pattern = nm(n, m, axis=axis)
    mask = mask_of(pattern, scores, 1 - n / m)
    assert mask.shape == scores.shape
    assert (pattern.units(mask.float()).sum(dim=1) == n).all()
