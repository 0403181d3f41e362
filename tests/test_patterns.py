import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.patterns import Unstructured


def test_mask_by_hand():
    scores = torch.tensor([[0.3, 0.1], [0.4, 0.2]])
    assert Unstructured().mask(scores, 0.5).tolist() == [[True, False], [True, False]]


def test_all_equal_scores_still_give_the_exact_count():
    mask = Unstructured().mask(torch.zeros(4, 5), 0.9)
    assert int(mask.sum()) == 2


def test_an_emptied_layer_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"conv1\.weight: sparsity 0\.999 would prune all 1 units.*exclude the layer"):
        Unstructured().masks({"conv1.weight": torch.ones(1, 1)}, {"conv1.weight": 0.999})


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        Unstructured().mask(torch.tensor([1.0, float("nan")]), 0.5)


@given(st.integers(2, 200), st.floats(0, 0.99))
def test_unstructured_prunes_exactly_the_rounded_count(n, sparsity):
    if round(sparsity * n) == n:
        return
    mask = Unstructured().mask(torch.rand(n), sparsity)
    assert int((~mask).sum()) == round(sparsity * n)
