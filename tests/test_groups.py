"""Groups of units that lie in several tensors, and the norms that rank them."""

import math

import pytest
import torch

from pruneexp.groups import Norm, Slice, SliceGroup, merged

TENSORS = {
    "a": torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]]),
    "b": torch.tensor([[1.0, 2.0, 0.0, 5.0]]),
    "bias": torch.tensor([1.0, 2.0, 3.0]),
}


def group(norm="l2"):
    """Two units: rows 0 and 2 of `a`; columns 0, 1 and 2, 3 of `b`; entries 0 and 2 of `bias`, which scores nothing."""
    rows = Slice("a", 0, torch.tensor([0, -1, 1]))
    columns = Slice("b", 1, torch.tensor([0, 0, 1, 1]))
    bias = Slice("bias", 0, torch.tensor([0, -1, 1]))
    return SliceGroup(
        "g", tensors=TENSORS, slices=[rows, columns, bias], scored=[rows, columns], gates=[columns], norm=Norm(norm)
    )


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("l2", [math.sqrt(25 + 5), math.sqrt(2 + 25)]),
        ("l2/fan_in", [math.sqrt(30 / 4), math.sqrt(27 / 4)]),
        ("l1", [10.0, 7.0]),
        ("l1/fan_in", [2.5, 1.75]),
    ],
)
def test_norms_by_hand(norm, expected):
    assert group(norm).scores(TENSORS)[0].tolist() == pytest.approx(expected)


def test_sizes():
    assert (group().unit_count, group().unit_size, group().fan_in) == (2, 5, 4)
    assert group().pruned_weights(0.5) == 5


def test_a_pruned_unit_takes_all_its_weights_with_it_and_no_other():
    masks = group().masks(group().keep(TENSORS, 0.5))
    assert masks["a"].flatten().tolist() == [True, True, False]
    assert masks["b"].flatten().tolist() == [True, True, False, False]
    assert masks["bias"].tolist() == [True, True, False]


def test_masks_of_groups_that_share_a_tensor_are_joined():
    joined = merged([{"w": torch.tensor([True, False])}, {"w": torch.tensor([True, True]), "v": torch.tensor([False])}])
    assert {name: mask.tolist() for name, mask in joined.items()} == {"w": [True, False], "v": [False]}


@pytest.mark.parametrize("norm", ["l2", "l2/fan_in", "l1", "l1/fan_in"])
def test_scores_have_the_gradient_of_finite_differences(norm):
    tensors = {name: (tensor.double() + 0.3).requires_grad_() for name, tensor in TENSORS.items()}

    def scores(a, b):
        return group(norm).scores({"a": a, "b": b})

    assert torch.autograd.gradcheck(scores, (tensors["a"], tensors["b"]))


@pytest.mark.parametrize("norm", ["l2", "l2/fan_in", "l1"])
def test_a_unit_of_zeros_has_a_finite_gradient(norm):
    tensors = {name: torch.zeros_like(tensor, requires_grad=True) for name, tensor in TENSORS.items()}
    group(norm).scores(tensors).square().sum().backward()
    assert tensors["a"].grad.isfinite().all()


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="g: a score is NaN"):
        group().keep({**TENSORS, "a": TENSORS["a"] * float("nan")}, 0.5)


def test_emptying_a_group_is_refused():
    with pytest.raises(ValueError, match=r"g: sparsity 0\.8 would prune all 2 units"):
        group().keep(TENSORS, 0.8)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"pattern\.norm=l3: want one of l2, l2/fan_in"):
        Norm("l3")
