"""Exports of small networks whose result can be written down by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.upscale import Reads, export

EXAMPLE = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def keeps(width, **channels):
    return {name.replace("__", "."): torch.tensor([c in kept for c in range(width)]) for name, kept in channels.items()}


class Fork(nn.Module):
    """One producer, several consumers."""

    def __init__(self, width, readers):
        super().__init__()
        self.make = nn.Conv2d(3, width, 3)
        self.readers = nn.ModuleList(nn.Conv2d(width, 2, 1) for _ in range(readers))

    def forward(self, x):
        x = F.relu(self.make(x))
        return torch.cat([reader(x) for reader in self.readers], 1)


def agree(module, network, keep, zeroed, example=EXAMPLE):
    module, expected = copy.deepcopy(module).double(), zeroed(network, keep)
    torch.testing.assert_close(module(example.double()), expected(example.double()), rtol=1e-10, atol=1e-12)


def test_two_overlapping_readers_both_read_a_slice(zeroed):
    network = Fork(4, 2)
    keep = keeps(4, readers__0={0, 3}, readers__1={0, 2})
    module, report = export(network, EXAMPLE, keep)
    assert report.layers == Reads(whole=1, slice=2, copy=0)  # `make` reads the image whole
    assert report.layers_unordered == Reads(whole=1, slice=1, copy=1)  # in 0, 2, 3 the channels 0 and 3 are apart
    assert report.reordered == ("make",)
    rows = [(network.make.weight == row).flatten(1).all(1).nonzero().item() for row in module.make.weight]
    assert rows in ([2, 0, 3], [3, 0, 2])  # channel 1, which nobody reads, is gone; the shared one is in the middle
    assert module.readers.get_submodule("0").in_channels == 2
    assert report.parameters == 3 * 28 + 2 * (2 * 2 + 2)
    agree(module, network, keep, zeroed)


def test_unordered_export_copies_what_does_not_lie_together(zeroed):
    network = Fork(4, 2)
    keep = keeps(4, readers__0={0, 3}, readers__1={0, 2})
    module, report = export(network, EXAMPLE, keep, mode="unordered")
    assert torch.equal(module.make.weight, network.make.weight[[0, 2, 3]])
    assert report.layers == report.layers_unordered == Reads(whole=1, slice=1, copy=1)
    assert [node.target for node in module.graph.nodes].count(torch.index_select) == 1
    agree(module, network, keep, zeroed)


def test_constrained_export_removes_only_what_nobody_reads_and_copies_nothing(zeroed):
    network = Fork(4, 2)
    keep = keeps(4, readers__0={0, 3}, readers__1={0, 2})
    module, report = export(network, EXAMPLE, keep, mode="constrained")
    assert report.layers == Reads(whole=3, slice=0, copy=0)
    assert torch.equal(module.make.weight, network.make.weight[[0, 2, 3]])
    first = module.readers.get_submodule("0").weight
    assert torch.equal(first, network.readers[0].weight[:, [0, 2, 3]] * torch.tensor([1, 0, 1]).reshape(1, 3, 1, 1))
    agree(module, network, keep, zeroed)


def test_three_readers_in_a_circle_need_exactly_one_copy(zeroed):
    network = Fork(3, 3)
    keep = keeps(3, readers__0={0, 1}, readers__1={1, 2}, readers__2={0, 2})
    module, report = export(network, EXAMPLE, keep)
    assert report.layers == Reads(whole=1, slice=2, copy=1)
    agree(module, network, keep, zeroed)


def test_nested_readers_all_read_slices(zeroed):
    network = Fork(6, 3)
    keep = keeps(6, readers__0={0, 2, 4, 5}, readers__1={0, 4}, readers__2={1, 3, 5})
    module, report = export(network, EXAMPLE, keep)
    assert report.layers == Reads(whole=1, slice=3, copy=0)
    agree(module, network, keep, zeroed)


def test_a_reader_that_keeps_nothing_gives_its_bias(zeroed):
    network = Fork(4, 2)
    keep = keeps(4, readers__0=set(), readers__1={1, 2})
    module, report = export(network, EXAMPLE, keep)
    assert module.readers.get_submodule("0").in_channels == 1
    assert not module.readers.get_submodule("0").weight.any()
    assert report.parameters == 2 * 28 + (2 + 2) + (2 * 2 + 2)
    agree(module, network, keep, zeroed)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(F.hardswish(x + self.second(x)))


def test_a_residual_sum_keeps_its_terms_in_one_order(zeroed):
    network, keep = Residual(), keeps(4, second={0, 2}, last={0, 3})
    module, report = export(network, EXAMPLE, keep)
    # Channel 1 goes from both terms; the term `first` needs 0, 2 and 3, so `second` makes 2 as well.
    assert module.first.out_channels == module.second.out_channels == 3
    assert report.layers == Reads(whole=1, slice=2, copy=0)
    order = [(network.first.weight == row).flatten(1).all(1).nonzero().item() for row in module.first.weight]
    assert order in ([2, 0, 3], [3, 0, 2])
    # `second` reads 0 and 2 and makes channels in the order of `first`.
    assert torch.equal(module.second.bias, network.second.bias[order])
    agree(module, network, keep, zeroed)


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.one, self.two = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        both = torch.cat([self.left(x), self.right(x)], 1)
        return self.one(both) + self.two(both)


def test_readers_of_a_concatenation_get_slices_across_its_border(zeroed):
    network, keep = Concatenated(), keeps(6, one={0, 2, 3}, two={0, 1, 5})
    module, report = export(network, EXAMPLE, keep)
    assert module.left.out_channels == 3 and module.right.out_channels == 2  # 4 is read by nobody
    assert report.layers == Reads(whole=2, slice=2, copy=0)
    assert report.layers_unordered == Reads(whole=2, slice=0, copy=2)
    agree(module, network, keep, zeroed)


def test_an_operand_of_which_nothing_is_read_leaves_the_concatenation(zeroed):
    network, keep = Concatenated(), keeps(6, one={0, 2}, two={2})
    module, report = export(network, EXAMPLE, keep)
    assert not hasattr(module, "right")
    assert report.parameters == 2 * 4 + (2 * 2 + 2) + (2 + 2)
    agree(module, network, keep, zeroed)


def test_a_depthwise_layer_loses_the_channels_that_its_reader_ignores(lively, zeroed):
    network = lively(
        nn.Sequential(
            *(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sigmoid()),
            *(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        )
    )
    keep = {"6": torch.tensor([False, True, False, True])}
    module, report = export(network, EXAMPLE, keep)
    depthwise = module.get_submodule("3")
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (2, 2, 2)
    assert torch.equal(depthwise.weight, network[3].weight[[1, 3]])
    assert torch.equal(module.get_submodule("1").running_mean, network[1].running_mean[[1, 3]])
    assert module.get_submodule("0").out_channels == module.get_submodule("4").num_features == 2
    assert report.layers.copy == report.layers.slice == 0
    agree(module, network, keep, zeroed)


def test_groups_of_a_convolution_stay_alike(zeroed):
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    keep = {"1": torch.tensor([True, False, False, False, True, True]), "2": torch.tensor([True, True, False, True])}
    module, _ = export(network, EXAMPLE, keep)
    grouped = module.get_submodule("1")
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (2, 4, 4)
    # Group 0 keeps one input where group 1 keeps two: input 1 stays beside input 0, with zero weights.
    expected = torch.stack([network[1].weight[0, [0, 1]], network[1].weight[1, [0, 1]]])
    expected[:, 1] = 0
    assert torch.equal(grouped.weight[:2], expected)
    assert torch.equal(grouped.weight[2:], network[1].weight[2:, [1, 2]])
    agree(module, network, keep, zeroed)


def test_a_group_of_which_nothing_is_read_goes(zeroed):
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    keep = {"2": torch.tensor([False, False, True, True])}
    module, _ = export(network, EXAMPLE, keep)
    assert module.get_submodule("1").groups == 1
    assert torch.equal(module.get_submodule("0").weight, network[0].weight[3:])
    agree(module, network, keep, zeroed)


@pytest.mark.parametrize("flatten", [nn.Flatten(), "method"])
def test_a_flattened_map_loses_whole_channels(flatten, zeroed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.flat, self.linear = nn.Conv2d(3, 3, 4), flatten, nn.Linear(12, 2)

        def forward(self, x):
            x = F.gelu(self.conv(x))
            return self.linear(self.flat(x) if isinstance(self.flat, nn.Module) else x.view(x.size(0), 3 * 4))

    network = Net()
    module, _ = export(network, EXAMPLE, {"linear": torch.tensor([True, False, True])})  # per channel
    assert module.conv.out_channels == 2 and module.linear.in_features == 8
    assert torch.equal(module.linear.weight, network.linear.weight[:, [0, 1, 2, 3, 8, 9, 10, 11]])
    some = torch.zeros(12, dtype=torch.bool)
    some[[0, 1, 2, 3, 6]] = True  # of channel 1 only its third element
    module, _ = export(network, EXAMPLE, {"linear": some})
    assert module.conv.out_channels == 2 and module.linear.in_features == 8
    assert torch.equal(module.linear.weight[:, 4:].count_nonzero(0), torch.tensor([0, 0, 2, 0]))
    agree(module, network, {"linear": some}, zeroed)


def test_an_export_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(Layer, "_weight", lambda self, blocks, rows: 1.001 * original(self, blocks, rows))
    with pytest.raises(RuntimeError, match="the unconstrained export differs from the masked network by"):
        export(Fork(4, 2), EXAMPLE, keeps(4, readers__0={0, 3}))


original = Layer._weight
