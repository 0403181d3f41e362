import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.patterns import Block, TensorGroup, Unstructured


def mask_of(pattern, scores, sparsity):
    group = TensorGroup("conv1.weight", scores.shape, pattern)
    return group.masks(group.keep({"conv1.weight": scores}, sparsity))["conv1.weight"]


def test_mask_by_hand():
    scores = torch.tensor([[0.3, 0.1], [0.4, 0.2]])
    assert mask_of(Unstructured(), scores, 0.5).tolist() == [[True, False], [True, False]]


def test_all_equal_scores_still_give_the_exact_count():
    mask = mask_of(Unstructured(), torch.zeros(4, 5), 0.9)
    assert int(mask.sum()) == 2


def test_an_emptied_layer_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"conv1\.weight: sparsity 0\.999 would prune all 1 units.*exclude the layer"):
        mask_of(Unstructured(), torch.ones(1, 1), 0.999)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        mask_of(Unstructured(), torch.tensor([1.0, float("nan")]), 0.5)


@given(st.integers(2, 200), st.floats(0, 0.99))
def test_unstructured_prunes_exactly_the_rounded_count(n, sparsity):
    if round(sparsity * n) == n:
        return
    mask = mask_of(Unstructured(), torch.rand(n), sparsity)
    assert int((~mask).sum()) == round(sparsity * n)


def test_blocks_by_hand():
    scores = torch.tensor([[1.0, 1.0, 0.0, 5.0], [1.0, 1.0, 0.0, 0.0], [3.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    # root mean squares 1, 2.5; 1.5, 2
    assert mask_of(Block(rows=2, columns=2), scores, 0.5).int().tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
    ]


def test_blocks_fit_matrices_that_they_divide():
    block = Block(rows=2, columns=3)
    assert block.fits(torch.Size([4, 6]))
    assert not block.fits(torch.Size([4, 8]))
    assert not block.fits(torch.Size([4, 6, 1, 1]))


def test_a_block_without_weights_is_refused():
    with pytest.raises(ValueError, match=r"pattern\.rows=0"):
        Block(rows=0, columns=4)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.floats(0, 0.9))
def test_whole_blocks_go(rows, columns, high, wide, sparsity):
    block = Block(rows=rows, columns=columns)
    scores = torch.rand(high * rows, wide * columns)
    count = round(sparsity * high * wide)
    if count == high * wide:
        return
    mask = mask_of(block, scores, sparsity)
    assert int((~mask).sum()) == count * rows * columns
    assert torch.equal(block.expand(block.units(mask.float()) > 0.5, mask.shape), mask)
