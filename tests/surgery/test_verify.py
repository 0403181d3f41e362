"""The comparison fails when it should."""

import copy

import pytest
import torch
from torch import nn

from pruneexp.surgery.verify import SurgeryError, verify


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 3))


def test_the_error_is_relative_to_the_largest_output_of_its_batch():
    left = network()
    right = copy.deepcopy(left)
    with torch.no_grad():
        right[3].bias[1] += 1e-4
    x = torch.randn(8, 4)
    expected = 1e-4 / left.eval().double()(x.double()).abs().max().item()
    assert verify(left.float(), right, [x], tolerance=1.0) == pytest.approx(expected, rel=1e-2)


def test_equal_networks_have_no_error_and_are_left_alone():
    left, right = network(), network()
    assert verify(left, right, [torch.randn(2, 4), torch.randn(3, 4)]) == 0.0
    assert left.training
    assert left[0].weight.dtype is torch.float32


def test_a_difference_above_the_tolerance_is_an_error_of_one_line():
    left, right = network(), network()
    with torch.no_grad():
        right[3].weight += 0.1
    with pytest.raises(
        SurgeryError, match=r"^the smaller network differs from the masked one: relative error 0.*1e-06$"
    ):
        verify(left, right, [torch.zeros(1, 4), torch.ones(1, 4)])


def test_a_difference_in_any_batch_counts():
    left, right = network(), network()
    with torch.no_grad():
        right[0].weight[:, 2] += 0.1
    blind, telling = torch.tensor([[1.0, 1.0, 0.0, 1.0]]), torch.ones(1, 4)
    assert verify(left, right, [blind]) == 0.0
    for order in ([blind, telling], [telling, blind]):
        with pytest.raises(SurgeryError):
            verify(left, right, order)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_never_pass(value):
    left, right = network(), network()
    right[3].bias.data[0] = value
    with pytest.raises(SurgeryError):
        verify(left, right, [torch.ones(1, 4)])
    left[3].bias.data[0] = value
    with pytest.raises(SurgeryError):
        verify(left, right, [torch.ones(1, 4)])


def test_other_shapes_and_no_batches_are_refused():
    with pytest.raises(SurgeryError, match="other shapes"):
        verify(network(), nn.Linear(4, 2), [torch.ones(1, 4)])
    with pytest.raises(SurgeryError, match="no batch"):
        verify(network(), network(), [])


def test_dicts_of_tensors_go_in_and_out():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, ids, scale):
            return {"logits": self.table(ids).mean(1) * scale}

    text = Text()
    batch = {"ids": torch.tensor([[1, 2]]), "scale": torch.tensor([2.0])}
    assert verify(text, copy.deepcopy(text), [batch]) == 0.0
