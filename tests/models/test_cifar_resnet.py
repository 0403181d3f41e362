"""CIFAR ResNets: the paper's sizes, the published keys, the parameter-free shortcut, tracing, coupled channels."""

import copy

import pytest
import torch
from torch import nn

from pruneexp.models.checkpoints import load_weights
from pruneexp.models.cifar_resnet import Block, CifarResNet, ResNet, ZeroPadShortcut
from pruneexp.models.coupling import dependency_graph


@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_parameter_counts(depth, parameters, cifar):
    """Table 6 of the paper, in millions: 0.27, 0.46, 0.66, 0.85, 1.7."""
    network = CifarResNet(depth=depth, checkpoint=None).build(cifar)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()) == depth


def test_keys_are_the_published_ones(cifar):
    network = CifarResNet(depth=20, checkpoint=None).build(cifar)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{key}" for key in norm)}
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            for i in (1, 2):
                keys |= {f"layer{stage}.{block}.conv{i}.weight", *(f"layer{stage}.{block}.bn{i}.{key}" for key in norm)}
    assert set(network.state_dict()) == keys


@pytest.mark.parametrize("depth", [2, 18, 21, 57])
def test_impossible_depths_are_refused(depth):
    with pytest.raises(ValueError, match=rf"model.depth={depth}: .*6n \+ 2"):
        CifarResNet(depth=depth, checkpoint=None)


@pytest.mark.parametrize("side", [8, 7])
def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides(side):
    x = torch.randn(2, 4, side, side)
    expected = torch.zeros(2, 8, (side + 1) // 2, (side + 1) // 2)
    for channel in range(4):
        for row in range(0, side, 2):
            for column in range(0, side, 2):
                expected[:, 2 + channel, row // 2, column // 2] = x[:, channel, row, column]
    shortcut = ZeroPadShortcut(4, 8)
    assert torch.equal(shortcut(x), expected)
    shortcut.source = shortcut.sources()
    assert torch.equal(shortcut(x), expected)


def test_shortcut_after_surgery_keeps_every_channels_source():
    x = torch.randn(1, 4, 6, 6)
    full = ZeroPadShortcut(4, 8)
    small = ZeroPadShortcut(4, 8)
    small.remove_outputs([0, 3])
    assert torch.equal(small(x), full(x)[:, [1, 2, 4, 5, 6, 7]])
    small.remove_inputs([1, 2])
    zeroed = x.clone()
    zeroed[:, [1, 2]] = 0
    assert torch.equal(small(x[:, [0, 3]]), full(zeroed)[:, [1, 2, 4, 5, 6, 7]])
    assert small.source == [-1, 0, -1, 1, -1, -1]
    assert (small.in_channels, small.out_channels) == (2, 6)


def test_block_computes_the_residual():
    torch.manual_seed(0)
    block = Block(4, 8, 2).double().eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.double)
    inner = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    padded = torch.cat([torch.zeros(2, 2, 4, 4), x[:, :, ::2, ::2], torch.zeros(2, 2, 4, 4)], 1)
    torch.testing.assert_close(block(x), torch.relu(inner + padded))


def test_initialisation_is_kaiming_normal(cifar):
    torch.manual_seed(0)
    network = CifarResNet(depth=20, checkpoint=None).build(cifar)
    weight = network.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert (weight.abs() > 2 * weight.std()).float().mean().item() == pytest.approx(0.0455, abs=0.005)  # normal tails
    assert not network.linear.bias.any()


def test_traces_without_graph_breaks():
    network = ResNet(blocks=1, channels=1, num_outputs=10)
    x = torch.randn(2, 1, 8, 8)
    network.eval()
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), network(x))
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_coupled_channels_can_be_removed_without_changing_the_output():
    import torch_pruning

    torch.manual_seed(0)
    network = ResNet(blocks=2, channels=3, num_outputs=5).double().eval()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    masked, x = copy.deepcopy(network), torch.randn(2, 3, 16, 16, dtype=torch.double)
    graph = dependency_graph(network, x)
    wanted = [0, 20, 26, 63]  # padding, a copy of stage two's padding, a copy of stage one's channel 2, padding
    group = graph.get_pruning_group(network.layer3[0].conv2, torch_pruning.prune_conv_out_channels, wanted)
    names = {module: name for name, module in network.named_modules()}
    removed = {}
    for dependency, indices in group:
        name = names.get(dependency.target.module)
        if name and dependency.handler.__name__ == "prune_out_channels":
            removed[name] = sorted(indices)
            for parameter in masked.get_submodule(name).parameters():
                parameter.data[indices] = 0
    assert (removed["layer3.1.conv2"], removed["layer2.1.conv2"], removed["conv1"]) == ([0, 20, 26, 63], [4, 10], [2])
    before = sum(p.numel() for p in network.parameters())
    group.prune()
    assert sum(p.numel() for p in network.parameters()) < before
    torch.testing.assert_close(network(x), masked(x))


@pytest.mark.shared_data
@pytest.mark.parametrize("depth", [20, 56])
def test_public_checkpoints_load_completely(depth, cifar, shared_data):
    network = CifarResNet(depth=depth, checkpoint=None).build(cifar)
    loaded = load_weights(network, shared_data / "checkpoints" / f"cifar10_resnet{depth}.safetensors")
    assert (loaded.missing, loaded.unexpected) == ([], [])
