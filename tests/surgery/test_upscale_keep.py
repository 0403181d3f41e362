"""Keeps from weight masks and by magnitude, worked out by hand."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruneexp.surgery.keep import keep_by_magnitude
from pruneexp.surgery.upscale import export
from pruneexp.surgery.weight_masks import keep_from_masks

EXAMPLE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """x + second(relu(norm(first(x)))), then a gate, then a reader."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.gate, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.second(F.relu(self.norm(self.first(x))))
        return self.last(x * torch.sigmoid(self.gate(x)))


def rows(*kept):
    return torch.tensor([row in kept for row in range(4)]).reshape(4, 1, 1, 1)


def test_output_channels_go_where_they_are_read_alone_and_from_sums_only_together():
    network = Block().eval()
    masks = {"first.weight": rows(0, 2), "second.weight": rows(0, 1), "stem.weight": rows(0, 2)}
    keep = keep_from_masks(network, EXAMPLE, masks)
    expected = {
        "first": [True, False, True, False],  # what `stem` still makes
        "second": [True, False, True, False],  # what `first` still makes
        "gate": [True, True, True, False],  # 3 is gone from both terms of the sum
        "last": [True, True, True, False],
    }
    assert {name: mask.tolist() for name, mask in keep.items()} == expected


def test_a_product_is_gone_with_one_factor():
    keep = keep_from_masks(Block().eval(), EXAMPLE, {"gate.weight": rows(1, 2, 3)})
    assert {name: mask.tolist() for name, mask in keep.items()} == {"last": [False, True, True, True]}


def test_input_channels_without_weights_are_ignored():
    mask = torch.ones(2, 4, 1, 1, dtype=torch.bool)
    mask[:, 1] = False
    mask[0, 2] = False
    keep = keep_from_masks(Block().eval(), EXAMPLE, {"last.weight": mask})
    assert {name: kept.tolist() for name, kept in keep.items()} == {"last": [True, False, True, True]}


def test_channels_are_followed_through_depthwise_grouped_padded_and_flattened_tensors():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.depthwise = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=4)
            self.grouped, self.linear = nn.Conv2d(6, 4, 3, groups=2), nn.Linear(16, 2)

        def forward(self, x):
            x = F.pad(self.depthwise(self.conv(x)), (0, 0, 0, 0, 1, 1))
            return self.linear(self.grouped(x).flatten(1))

    grouped = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    grouped[3] = False  # an output
    grouped[2:, 0] = False  # input 3, of the second group
    masks = {"conv.weight": rows(0, 1, 3), "depthwise.weight": rows(1, 2, 3), "grouped.weight": grouped}
    keep = keep_from_masks(Net().eval(), EXAMPLE, masks)
    # Padding | 0 (depthwise) 1 2 (conv) 3 | padding, input 3 of the layer itself
    assert keep["grouped"].tolist() == [False, False, True, False, True, False]
    assert keep["linear"].tolist() == [True] * 12 + [False] * 4
    assert set(keep) == {"grouped", "linear"}


def test_an_export_of_masked_weights_says_how_far_it_is_from_them(lively):
    network = lively(Block())
    masks = {"first.weight": rows(0, 2), "stem.weight": rows(0, 2), "second.weight": rows(0, 2)}
    for name, mask in masks.items():
        network.get_parameter(name).data.mul_(mask)
        network.get_submodule(name.split(".")[0]).bias.data.mul_(mask.flatten())
    keep = keep_from_masks(network, EXAMPLE, masks)
    _, report = export(network, EXAMPLE, keep)
    assert report.difference < 1e-12 and report.change > 1e-3  # the norm makes constants of the zeros of `first`
    network.norm.bias.data.mul_(rows(0, 2).flatten())
    network.norm.running_mean.mul_(rows(0, 2).flatten())
    module, report = export(network, EXAMPLE, keep)
    assert report.change < 1e-12
    assert module.stem.out_channels == module.first.out_channels == module.second.out_channels == 2
    torch.testing.assert_close(module(EXAMPLE), network(EXAMPLE))


def test_magnitude_drops_the_inputs_with_the_smallest_weights():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(32, 1)).eval()
    network[1].weight.data = torch.tensor([[3.0, 0.0, -2.0, 2.5], [0.0, 1.0, 2.0, 0.0]]).reshape(2, 4, 1, 1)
    network[3].weight.data = torch.cat([torch.full((1, 16), 0.1), torch.zeros(1, 16)], 1)
    network[3].weight.data[0, 20] = 1.0
    keep = keep_by_magnitude(network, EXAMPLE, 0.5, norm=1)
    assert keep["1"].tolist() == [True, False, True, False]  # sums 3, 1, 4, 2.5
    assert keep["3"].tolist() == [True] * 16 + [False] * 16  # sums 1.6 and 1
    assert keep_by_magnitude(network, EXAMPLE, 0.5, norm=2)["3"].tolist() == [False] * 16 + [True] * 16  # 0.16 and 1
    assert set(keep) == {"1", "3"}  # the first layer reads the image
    assert set(keep_by_magnitude(network, EXAMPLE, 0.5, exclude=["3"])) == {"1"}


def test_magnitude_takes_as_many_from_every_group():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1)).eval()
    network[1].weight.data = torch.tensor([[1.0, 2.0], [1.0, 2.0], [30.0, 4.0], [30.0, 4.0]]).reshape(4, 2, 1, 1)
    network[2].weight.data = torch.tensor([1.0, 2.0, 4.0, 3.0]).reshape(1, 4, 1, 1)
    keep = keep_by_magnitude(network, EXAMPLE, 0.5)
    assert keep["1"].tolist() == [False, True, True, False]
    assert keep["2"].tolist() == [False, True, True, False]


def test_magnitude_leaves_one_channel():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)).eval()
    assert keep_by_magnitude(network, EXAMPLE, 0.99)["1"].sum() == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_an_impossible_ratio_is_named(ratio):
    with pytest.raises(ValueError, match=re.escape(f"ratio={ratio}: must be in [0, 1)")):
        keep_by_magnitude(nn.Sequential(nn.Conv2d(3, 4, 1)), EXAMPLE, ratio)
