"""Groups of channels, checked by removing them with torch-pruning: a masked channel must leave no trace."""

import copy

import pytest
import torch
from torch import nn

from pruneexp.building import build
from pruneexp.cli import compose
from pruneexp.datasets.base import DataInfo
from pruneexp.groups import Norm, merged
from pruneexp.masks import apply_masks_
from pruneexp.models.coupling import dependency_graph
from pruneexp.prunable import prunable
from pruneexp.surgery.channel_groups import channel_groups


def ours(name):
    info = DataInfo("image", 10, ("accuracy",), channels=3, image_size=32)
    return build(compose([f"model={name}"])["model"], "model").network(info, pretrained=False)


def torchvisions(name):
    import torchvision

    return torchvision.models.get_model(name, num_classes=10)


def random_network(name, seed=0):
    """In float64, every norm with scale, shift and statistics of its own."""
    torch.manual_seed(seed)
    network = ours(name) if name in ("resnet20", "mobilenet_v1", "resnet50") else torchvisions(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.double().eval()


def groups_of(network, exclude=(), **options):
    options = {"norm": Norm("l2"), "gate_norms": True, **options}
    return channel_groups(network, torch.randn(1, 3, 32, 32).double(), weights=prunable(network, exclude), **options)


@pytest.mark.parametrize(
    "name",
    [
        "resnet20",
        "resnet50",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "densenet121",
        "efficientnet_b0",
        "regnet_y_400mf",
        "vgg11_bn",
    ],
)
def test_a_masked_channel_can_be_removed(name):
    network = random_network(name)
    groups = groups_of(network)
    generator = torch.Generator().manual_seed(1)
    masks = merged(
        group.masks(torch.rand(1, group.unit_count, generator=generator).argsort() > group.unit_count // 3)
        for group in groups
    )
    apply_masks_(dict(network.named_parameters()), masks)
    small = copy.deepcopy(network)
    for group in groups:
        filters = group.scored[0].parameter  # one of those tied together; torch-pruning finds the others
        layer = small.get_submodule(filters.removesuffix(".weight"))
        if len(layer.weight) == len(masks[filters]):  # else an earlier group has removed all that is dead in it
            graph = dependency_graph(small, torch.randn(1, 3, 32, 32).double())
            dead = (~masks[filters].flatten()).nonzero().flatten().tolist()
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, dead).prune()
    inputs = torch.randn(4, 3, 32, 32, generator=generator).double()
    with torch.no_grad():
        expected, got = network(inputs), small.eval()(inputs)
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in network.parameters())
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_channels_that_a_residual_add_ties_together_are_one_unit():
    groups = {group.name: group for group in groups_of(ours("resnet20").double())}
    assert [part.parameter for part in groups["layer1.0.conv1.weight"].scored] == ["layer1.0.conv1.weight"]
    stem = groups["conv1.weight"]
    # 16 channels of the first stage, which the shortcuts copy into the middle of the later ones
    assert stem.unit_count == 16
    filters = {part.parameter: part.unit for part in stem.scored}
    assert set(filters) == {"conv1.weight"} | {f"layer{s}.{b}.conv2.weight" for s in (1, 2, 3) for b in (0, 1, 2)}
    assert filters["layer2.0.conv2.weight"].tolist() == [-1] * 8 + list(range(16)) + [-1] * 8
    assert filters["layer3.0.conv2.weight"].tolist() == [-1] * 24 + list(range(16)) + [-1] * 24
    assert {part.parameter for part in stem.gates} == {
        name.replace("conv", "bn").replace("weight", leaf) for name in filters for leaf in ("weight", "bias")
    }


def test_a_group_with_an_excluded_filter_is_left_alone():
    names = {group.name for group in groups_of(ours("resnet20").double(), exclude=["layer3.2.conv2.weight"])}
    assert "layer1.0.conv1.weight" in names
    assert "conv1.weight" not in names


def test_outputs_of_the_network_are_never_pruned():
    assert not any("linear.weight" in group.parameters for group in groups_of(ours("resnet20").double()))


def test_norms_over_several_channels_keep_theirs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 1)
            self.c = nn.Linear(6, 2)

        def forward(self, x):
            return self.c(self.b(self.norm(self.a(x)).relu()).relu().mean((2, 3)))

    assert [group.name for group in groups_of(Net().double())] == ["b.weight"]


def test_tracing_leaves_the_network_as_it_was():
    network = ours("resnet20").double().train()
    before = copy.deepcopy(network.state_dict())
    groups_of(network)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
