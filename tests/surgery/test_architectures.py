"""Real architectures with dead channels: exactly those go, and the function stays."""

import copy
import json
import random

import pytest
import timm
import torch
import torchvision
from torch import nn

from pruneexp.models.cifar_resnet import ResNet, ZeroPadShortcut
from pruneexp.models.mobilenet_v1 import MobileNet
from pruneexp.surgery.shrink import shrink, shrink_and_report
from pruneexp.surgery.structure import restructure_, structure
from pruneexp.surgery.verify import SurgeryError

OUTPUTS = 7


def narrow_vgg(batch_norm):
    """torchvision's VGG-16 with an eighth of the channels: the flatten of 49 places a channel as in the original."""
    widths = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
    features = torchvision.models.vgg.make_layers(widths, batch_norm=batch_norm)
    network = torchvision.models.VGG(features, num_classes=OUTPUTS, init_weights=False)
    network.classifier[0], network.classifier[3] = nn.Linear(64 * 49, 48), nn.Linear(48, 48)
    network.classifier[6] = nn.Linear(48, OUTPUTS)
    return network


def tv(name):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=OUTPUTS)


NETWORKS = {
    "resnet18": tv("resnet18"),
    "resnet34": tv("resnet34"),
    "resnet50": tv("resnet50"),
    "vgg16": lambda: narrow_vgg(batch_norm=False),
    "vgg16_bn": lambda: narrow_vgg(batch_norm=True),
    "mobilenet_v2": tv("mobilenet_v2"),
    "mobilenet_v3_small": tv("mobilenet_v3_small"),
    "mobilenet_v3_large": tv("mobilenet_v3_large"),
    "efficientnet_b0": tv("efficientnet_b0"),
    "mobilenet_v1": lambda: MobileNet(width=0.5, channels=3, num_outputs=OUTPUTS),
    "timm_resnet26d": lambda: timm.create_model("resnet26d", num_classes=OUTPUTS),
    "timm_mobilenetv1": lambda: timm.create_model("mobilenetv1_100", num_classes=OUTPUTS),
    "timm_efficientnet": lambda: timm.create_model("efficientnet_b0", num_classes=OUTPUTS),
}


MORE = {
    "shufflenet": tv("shufflenet_v2_x0_5"),
    "swin": lambda: timm.create_model("swin_s3_tiny_224", img_size=64, window_size=2, num_classes=OUTPUTS),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=OUTPUTS),
    "ghostnet": lambda: timm.create_model("ghostnet_050", num_classes=OUTPUTS),
    "inception": lambda: timm.create_model("inception_v3", num_classes=OUTPUTS, aux_logits=False),
}


@pytest.mark.parametrize("name", MORE)
def test_other_networks_are_shrunk_correctly_or_refused(name, randomised, difference):
    """Splits, shuffles, windows and permutations: dead channels may have to stay, the function may not change."""
    network = randomised(MORE[name]())
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and len(module.weight) != OUTPUTS:
            for parameter in module.parameters(recurse=False):
                parameter.data[::3] = 0
    x = torch.randn(1, 3, 96 if name == "inception" else 64, 96 if name == "inception" else 64)
    try:
        small = shrink(network, {}, x)
    except SurgeryError as error:
        assert name == "shufflenet"  # torch-pruning divides by zero at its channel shuffle
        assert "torch-pruning cannot follow ShuffleNetV2" in str(error)
    else:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
        assert difference(network, small, x) < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_dead_channels_go_and_no_others(name, randomised, channel_masks, difference):
    network = randomised(NETWORKS[name]())
    masks, alive = channel_masks(network, 0.5, OUTPUTS)
    x = torch.randn(2, 3, 32, 32)
    shrunk = shrink_and_report(network, masks, x)
    small = shrunk.network
    assert shrunk.kept == []
    assert difference(network, small, x) < 1e-6
    for path, before in network.named_modules():
        after = small.get_submodule(path)
        if isinstance(before, nn.Conv2d):
            inputs = alive.get(before.in_channels, before.in_channels)
            assert (after.out_channels, after.in_channels) == (alive[before.out_channels], inputs), path
        elif isinstance(before, nn.BatchNorm2d):
            assert after.num_features == len(after.running_var) == alive[before.num_features], path
        elif isinstance(before, nn.Linear):
            places = 49 if before.in_features == 64 * 49 else 1
            assert after.in_features == places * alive[before.in_features // places], path
    fresh = NETWORKS[name]()
    restructure_(fresh, json.loads(json.dumps(structure(small))))
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh.eval()(x), small(x))


def option_a(network, rate):
    """Prunes channels that meet through the shortcuts: channel c of a stage becomes c + 8, or c + 16, of the next."""
    rng = random.Random(0)
    dead = {16: set(rng.sample(range(16), round(16 * rate)))}
    for width, pad in ((32, 8), (64, 16)):
        new = [*range(pad), *range(width - pad, width)]
        dead[width] = {c + pad for c in dead[width // 2]} | set(rng.sample(new, round(len(new) * rate)))
    masks = {}
    for name, parameter in network.named_parameters():
        if not name.startswith("linear"):
            kept = torch.ones(len(parameter), dtype=torch.bool)
            kept[sorted(dead[len(parameter)])] = False
            masks[name] = kept.reshape(-1, *[1] * (parameter.dim() - 1))
            parameter.data *= masks[name]
    return masks, {width: width - len(channels) for width, channels in dead.items()}


@pytest.mark.parametrize("blocks", [3, 9], ids=["resnet20", "resnet56"])
def test_cifar_resnets_with_their_parameter_free_shortcuts(blocks, randomised, difference):
    network = randomised(ResNet(blocks=blocks, channels=3, num_outputs=OUTPUTS))
    masks, alive = option_a(network, 0.5)
    x = torch.randn(2, 3, 32, 32)
    small = shrink(network, masks, x)
    assert difference(network, small, x) < 1e-6
    for path, before in network.named_modules():
        if isinstance(before, nn.Conv2d):
            assert small.get_submodule(path).out_channels == alive[before.out_channels]
    shortcut = small.layer2[0].shortcut
    assert isinstance(shortcut, ZeroPadShortcut)
    assert (shortcut.in_channels, shortcut.out_channels) == (alive[16], alive[32])
    fresh = ResNet(blocks=blocks, channels=3, num_outputs=OUTPUTS)
    restructure_(fresh, json.loads(json.dumps(structure(small))))
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh.eval()(x), small(x))


def test_a_shrunk_network_can_be_pruned_and_shrunk_again(randomised, difference):
    network = randomised(ResNet(blocks=2, channels=3, num_outputs=OUTPUTS))
    x = torch.randn(2, 3, 32, 32)
    once = shrink(network, option_a(network, 0.25)[0], x)
    for conv in (once.layer1[0].conv1, once.layer3[1].conv1):
        conv.weight.data[0] = 0
    for norm in (once.layer1[0].bn1, once.layer3[1].bn1):
        norm.weight.data[0] = norm.bias.data[0] = 0
    twice = shrink(once, {}, x)
    assert twice.layer1[0].conv1.out_channels == once.layer1[0].conv1.out_channels - 1
    assert twice.layer3[1].conv1.out_channels == once.layer3[1].conv1.out_channels - 1
    assert difference(once, twice, x) < 1e-6


def test_densenet_with_its_concatenations(randomised, difference):
    """Only filters are dead: each of the norms behind them leaves a constant, which 1x1 convolutions take over."""
    network = randomised(tv("densenet121")())
    masks = {}
    for name, module in network.named_modules():
        if name.endswith(("conv2", "conv0")):  # what is concatenated
            kept = torch.rand(module.out_channels) > 0.5
            masks[f"{name}.weight"] = kept.reshape(-1, 1, 1, 1)
            module.weight.data *= masks[f"{name}.weight"]
    x = torch.randn(2, 3, 32, 32)
    shrunk = shrink_and_report(network, masks, x)
    assert difference(network, shrunk.network, x) < 1e-6
    for name, mask in masks.items():
        path = name.removesuffix(".weight")
        if "conv2" in path:
            assert shrunk.network.get_submodule(path).out_channels == int(mask.sum())
    block = network.features.denseblock1
    growth = [int(masks[f"features.denseblock1.denselayer{i}.conv2.weight"].sum()) for i in (1, 2)]
    before = shrunk.network.features.denseblock1.denselayer1.conv1.in_channels
    after = shrunk.network.features.denseblock1.denselayer3.conv1
    assert after.in_channels == before + sum(growth)
    assert block.denselayer3.conv1.bias is None
    assert after.bias is not None
    fresh = tv("densenet121")()
    restructure_(fresh, json.loads(json.dumps(structure(shrunk.network))))
    fresh.load_state_dict(shrunk.network.state_dict())
    assert torch.equal(fresh.eval()(x), shrunk.network(x))


def test_grouped_convolutions_keep_groups_of_one_size(randomised, difference):
    network = randomised(
        torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=OUTPUTS, groups=4, width_per_group=16
        )
    )
    conv, norm = network.layer1[0].conv2, network.layer1[0].bn2
    for layer in (conv, norm):  # groups of 16 outputs: 3 die in the first, 1 in the second, 2 in each of the others
        for parameter in layer.parameters():
            parameter.data[[0, 1, 2, 16, 32, 33, 48, 49]] = 0
    x = torch.randn(2, 3, 32, 32)
    shrunk = shrink_and_report(network, {}, x)
    assert shrunk.network.layer1[0].conv2.out_channels == 64 - 4
    assert [(kept.layer, kept.units) for kept in shrunk.kept] == [("layer1.0.conv2", 4)]
    assert "groups of one size" in shrunk.kept[0].why
    assert difference(network, shrunk.network, x) < 1e-6


def test_the_network_itself_stays_as_it_is(randomised, channel_masks):
    network = randomised(tv("resnet18")()).train()
    network.conv1.weight.requires_grad_(False)
    masks, _ = channel_masks(network, 0.5, OUTPUTS)
    state = copy.deepcopy(network.state_dict())
    small = shrink(network, masks, torch.randn(2, 3, 32, 32))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in state.items())
    assert network.training
    assert small.training
    assert not small.conv1.weight.requires_grad
    assert small.fc.weight.requires_grad
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float32}
