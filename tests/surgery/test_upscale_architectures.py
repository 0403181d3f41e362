"""Exports of networks as people use them: equal to the masked network, and no more copies than without re-ordering."""

import copy
import warnings

import pytest
import torch

from pruneexp.models.cifar_resnet import ResNet
from pruneexp.surgery.keep import keep_by_magnitude
from pruneexp.surgery.upscale import MODES, export

# Layers that copy channels before and after re-ordering, at a ratio of 0.5 with these random weights. Not known by
# hand; a change means that the order became better or worse.
COPIES = {
    "resnet18": (12, 4),
    "resnet50": (21, 11),
    "mobilenet_v2": (15, 5),
    "mobilenet_v3_small": (28, 2),
    "mobilenet_v3_large": (32, 4),
    "densenet121": (62, 58),
    "efficientnet_b0": (46, 4),
    "shufflenet_v2_x0_5": (19, 0),
    "regnet_y_400mf": (53, 43),
    "regnet_x_400mf": (27, 17),
    "googlenet": (36, 18),
    "vgg11_bn": (0, 0),
    "timm/mobilenetv1_100": (0, 0),
    "cifar/resnet20": (10, 4),
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    family, _, architecture = name.rpartition("/")
    if family == "cifar":
        return ResNet(blocks=3, channels=3, num_outputs=10)
    if family == "timm":
        import timm

        return timm.create_model(architecture)
    import torchvision

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {"num_classes": 10}
        if name == "googlenet":
            sizes |= {"aux_logits": False, "init_weights": False}
        network = getattr(torchvision.models, name)(weights=None, **sizes)
    if name == "vgg11_bn":  # 120 of its 133 M parameters say nothing new
        network.avgpool = torch.nn.AdaptiveAvgPool2d(2)
        network.classifier = torch.nn.Sequential(torch.nn.Linear(2048, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    return network


@pytest.mark.parametrize("name", COPIES)
def test_the_export_of(name, lively, zeroed):
    network = lively(built(name))
    example = torch.randn(1, 3, 64, 64) if name != "cifar/resnet20" else torch.randn(1, 3, 32, 32)
    keep = keep_by_magnitude(network, example, 0.5)
    module, report = export(network, example, keep)
    assert report.difference < 1e-12
    assert (report.layers_unordered.copy, report.layers.copy) == COPIES[name]
    assert report.macs < 0.62 * report.macs_dense
    other = torch.randn(2, *example.shape[1:], dtype=torch.float64)
    expected = zeroed(network, keep)(other)
    assert (expected[0] - expected[1]).abs().max() > 1e-4 * expected.abs().max()  # the images matter
    close(copy.deepcopy(module).double()(other), expected)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["cifar/resnet20", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_all_modes_compute_the_same_with_more_or_fewer_numbers_of(name, lively):
    network = lively(built(name)).double()
    example = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    keep = keep_by_magnitude(network, example, 0.5)
    exports = {mode: export(network, example, keep, mode=mode) for mode in MODES}
    outputs = [module(example) for module, _ in exports.values()]
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])
    macs = {mode: report.macs for mode, (_, report) in exports.items()}
    assert macs["unordered"] == macs["unconstrained"] < macs["constrained"] < exports["constrained"][1].macs_dense


def test_the_weights_of_an_export_fit_the_export_of_any_network_with_the_same_masks(lively):
    network, other = (lively(built("mobilenet_v3_small"), seed) for seed in (0, 1))
    example = torch.randn(1, 3, 32, 32)
    keep = keep_by_magnitude(network, example, 0.5)
    (module, _), (again, _) = (export(given, example, keep) for given in (network, other))
    again.load_state_dict(module.state_dict())
    torch.testing.assert_close(again(example), module(example))
