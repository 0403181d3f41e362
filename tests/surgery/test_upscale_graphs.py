"""Exports around operations that need care: unknown ones, in-place ones, several inputs, changed shapes."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruneexp.surgery.upscale import MODES, export

EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A producer of 6 channels, something in between, and a reader that ignores every second channel."""

    def __init__(self, operation, channels=6):
        super().__init__()
        self.make, self.read = nn.Conv2d(3, 6, 3), nn.Conv2d(channels, 2, 1)
        self.operation = operation
        self.norm = nn.BatchNorm2d(6, affine=False).eval()
        self.scale = nn.Parameter(torch.arange(1.0, 7.0).reshape(6, 1, 1))

    def forward(self, x):
        return self.read(self.operation(self, self.make(x)))

    def keep(self):
        return {"read": torch.arange(self.read.in_channels) % 2 == 0}


KNOWN = {
    "two activations": lambda self, x: torch.sigmoid(F.relu6(x)),
    "a stored scale": lambda self, x: x * self.scale + 1.0,
    "a stored scale, in part and as a whole": lambda self, x: x * self.scale + self.scale.sum(),
    "a number": lambda self, x: x / 3,
    "pooling": lambda self, x: F.avg_pool2d(F.max_pool2d(x, 2), 2),
    "mean": lambda self, x: x.mean((2, 3), keepdim=True),
    "crop": lambda self, x: x[:, :, 1:-1, ::2],
    "padding": lambda self, x: F.pad(x, (1, 1, 0, 2)),
    "there and back": lambda self, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "flat and back": lambda self, x: x.flatten(2).reshape(x.shape[0], 6, x.shape[2], x.shape[3]),
    "a gate": lambda self, x: x * torch.sigmoid(x.amax((2, 3), keepdim=True)),
    "in place": lambda self, x: F.relu(x, inplace=True).add_(1).mul_(x.clamp(min=0.5)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KNOWN)
def test_operations_on_single_channels_pass_the_removal_on(name, mode, zeroed):
    network = Between(KNOWN[name])
    module, _ = export(network, EXAMPLE, network.keep(), mode=mode)
    assert module.make.out_channels == module.read.in_channels == 3
    compare(module, network, zeroed)


def compare(module, network, zeroed):
    """Equal outputs, also for a batch of another size and larger images."""
    for shape in [(2, 3, 6, 6), (5, 3, 6, 6)]:
        example = torch.randn(shape, dtype=torch.float64)
        expected = zeroed(network, network.keep())(example)
        torch.testing.assert_close(copy.deepcopy(module).double()(example), expected, rtol=1e-10, atol=1e-12)


UNKNOWN = {
    "reversed channels are a choice": (lambda self, x: x.flip(1), 6),
    "softmax mixes channels": (lambda self, x: x.softmax(1), 6),
    "sums over channels": (lambda self, x: x.cumsum(1), 6),
    "a norm over channels": (lambda self, x: F.layer_norm(x, x.shape[1:]), 6),
    "group norm": (lambda self, x: F.group_norm(x, 3), 6),
    "channels become pixels": (lambda self, x: x.reshape(x.shape[0], 3, -1, x.shape[3]), 3),
    "named arguments": (lambda self, x: F.relu(input=torch.flatten(input=x, start_dim=2)).reshape(x.shape), 6),
    "a norm used twice": (lambda self, x: self.norm(self.norm(x) + 1), 6),
    "a stack": (lambda self, x: torch.stack([x, x], 2).flatten(1, 2), 12),
    "a matrix product": (lambda self, x: torch.einsum("bchw,cd->bdhw", x, self.scale.reshape(6, 1).expand(6, 6)), 6),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", UNKNOWN)
def test_channels_that_meet_an_unknown_operation_stay(name, mode, zeroed):
    network = Between(*UNKNOWN[name])
    module, _ = export(network, EXAMPLE, network.keep(), mode=mode)
    assert torch.equal(module.make.weight, network.make.weight)
    compare(module, network, zeroed)


def shuffle(self, x):
    batch, channels, height, width = x.size()
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


GATHERS = {
    "a shuffle": (shuffle, 6, [0, 1, 2]),  # 0 3 1 4 2 5, every second
    "a slice": (lambda self, x: x[:, 1:5], 4, [1, 3]),
    "a chunk": (lambda self, x: x.chunk(3, 1)[2], 2, [4]),
    "a split": (lambda self, x: x.split([1, 5], dim=1)[1], 5, [1, 3, 5]),
    "two halves swapped": (lambda self, x: torch.cat([x[:, 3:], x[:, :3]], 1), 6, [1, 3, 5]),
    "two halves added": (lambda self, x: x.chunk(2, 1)[0] + x.chunk(2, 1)[1], 3, [0, 2, 3, 5]),
    "twice the same": (lambda self, x: torch.cat([x, x], 1), 12, [0, 2, 4]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GATHERS)
def test_picked_channels_are_followed_to_their_producer(name, mode, zeroed):
    operation, channels, left = GATHERS[name]
    network = Between(operation, channels)
    module, _ = export(network, EXAMPLE, network.keep(), mode=mode)
    rows = [(network.make.weight == row).flatten(1).all(1).nonzero().item() for row in module.make.weight]
    assert sorted(rows) == left
    compare(module, network, zeroed)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_padded_channels_can_go_and_stay(value, zeroed):
    network = Between(lambda self, x: F.pad(x, (0, 0, 0, 0, 1, 2), value=value), 9)
    for mode in MODES:
        module, _ = export(network, EXAMPLE, network.keep(), mode=mode)
        assert module.make.out_channels == 3 and module.read.in_channels == 5  # 0 | 2 4 6 | 8
        compare(module, network, zeroed)


def test_an_unknown_layer_between_does_not_hide_the_mask(zeroed):
    class Odd(nn.Conv2d):  # not one of torch's own: traced as a function call of its weight
        def forward(self, x):
            return F.conv2d(x.flip(1), self.weight, self.bias)

    network = Between(lambda self, x: x)
    network.make = Odd(3, 6, 3)
    module, _ = export(network, EXAMPLE, network.keep())
    assert module.read.in_channels == 3
    compare(module, network, zeroed)


def test_a_layer_used_twice_is_left_alone(zeroed):
    class Twice(Between):
        def forward(self, x):
            x = self.make(x)
            return self.read(x) + self.read(F.relu(x))

    network = Twice(None)
    module, _ = export(network, EXAMPLE, network.keep())
    assert module.read.in_channels == 6
    compare(module, network, zeroed)


def test_a_transposed_convolution_is_a_layer_like_others(lively):
    network = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2), nn.ReLU(), nn.Conv2d(6, 1, 1)))
    keep = {"1": torch.tensor([True, False, True, True]), "3": torch.tensor([True, False, True, False, True, False])}
    module, _ = export(network, EXAMPLE, keep)
    assert torch.equal(module.get_submodule("1").weight, network[1].weight[[0, 2, 3]][:, [0, 2, 4]])
    assert (module.get_submodule("1").in_channels, module.get_submodule("1").out_channels) == (3, 3)


def test_several_inputs_are_given_as_a_tuple():
    class Two(Between):
        def forward(self, x, y):
            return self.read(self.make(x) * self.make_too(y))

    network = Two(None)
    network.make_too = nn.Conv2d(1, 6, 3)
    example = (EXAMPLE, torch.randn(2, 1, 6, 6))
    module, report = export(network, example, network.keep())
    assert module.make_too.out_channels == 3
    assert report.macs_dense == 16 * (27 * 6 + 9 * 6 + 12)
    assert report.macs == 16 * (27 * 3 + 9 * 3 + 6)


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 2, 1)).train()
    before = copy.deepcopy(network.state_dict())
    export(network, EXAMPLE, {"3": torch.arange(6) % 2 == 0})
    assert network.training and network[2].inplace and network[0].out_channels == 6
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not network[3]._forward_pre_hooks


def test_an_export_trains_saves_and_can_be_exported_again(tmp_path):
    network = Between(lambda self, x: F.relu(x))
    first, _ = export(network, EXAMPLE, network.keep())
    assert set(first.state_dict()) == {"make.weight", "make.bias", "read.weight", "read.bias"}
    torch.save(first, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(loaded(EXAMPLE), first(EXAMPLE))
    loaded(EXAMPLE).square().mean().backward()
    assert loaded.make.weight.grad.abs().sum() > 0
    second, report = export(first, EXAMPLE, {"read": torch.tensor([True, False, True])})
    assert second.make.out_channels == 2 and report.parameters_dense == 3 * 28 + 3 * 2 + 2
    torch.export.export(second, (EXAMPLE,))


@pytest.mark.parametrize(
    ("keep", "mode", "message"),
    [
        ({}, "both", "mode=both: choose one of constrained, unordered, unconstrained"),
        ({"stem": torch.ones(3).bool()}, MODES[0], "keep[stem]: the network has no convolution or linear layer"),
        ({"read.weight": torch.ones(5).bool()}, MODES[0], "keep[read]: has 5 values; the layer has 6 input"),
        ({"read": torch.ones(6)}, MODES[0], "keep[read]: is torch.float32; give a bool tensor"),
    ],
)
def test_wrong_arguments_are_named(keep, mode, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        export(Between(lambda self, x: F.relu(x)), EXAMPLE, keep, mode=mode)


def test_a_linear_layer_takes_a_mask_of_features_or_of_channels_and_no_other():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    for width in (4, 16):
        export(network, EXAMPLE, {"3": torch.arange(width) > 3})
    with pytest.raises(ValueError, match=re.escape("keep[3]: has 8 values; the layer has 16 input channels")):
        export(network, EXAMPLE, {"3": torch.arange(8) > 3})


def test_a_layer_inside_a_module_that_does_not_call_it_is_refused():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(36, 1)

        def forward(self, x):
            x = x.flatten(2)
            return self.attention(x, x, x)[0]

    network = Attention()
    export(network, EXAMPLE, {})
    with pytest.raises(
        ValueError, match=re.escape("keep[attention.out_proj]: the network does not call this layer by itself")
    ):
        export(network, EXAMPLE, {"attention.out_proj": torch.arange(36) > 3})


def test_results_that_are_used_through_the_tensor_written_into_are_followed(zeroed):
    def between(self, x):
        y = x * 2
        y.add_(1).relu_()
        return x + y

    network = Between(between)
    module, _ = export(network, EXAMPLE, network.keep())
    assert module.make.out_channels == 3
    compare(module, network, zeroed)


def test_writing_into_a_tensor_without_another_way_is_refused():
    with pytest.raises(ValueError, match=r"zero_ \(node zero_\): writes into a tensor"):
        export(Between(lambda self, x: x.zero_()), EXAMPLE, {})


def test_a_network_with_branches_on_its_numbers_is_refused():
    network = Between(lambda self, x: x if x.sum() > 0 else -x)
    with pytest.raises(ValueError, match=r"Between: torch\.fx cannot trace its forward"):
        export(network, EXAMPLE, network.keep())
