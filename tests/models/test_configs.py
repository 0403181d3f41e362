"""Every config names a class, all of its arguments and no other, and the networks take what the datasets give."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from pruneexp.models.base import Model

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "model").glob("*.yaml"))
IMAGE = [path for path in CONFIGS if path.stem not in ("bert", "bert_tiny")]


def target(path: Path):
    config = yaml.safe_load(path.read_text())
    config.pop("defaults", None)
    module, _, name = config.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), config


def test_there_is_a_config_for_each_documented_model():
    wanted = (
        "bert bert_tiny mobilenet_v1 mobilenet_v2 mobilenet_v3_small resnet18 resnet20 resnet34 resnet50 resnet56 timm"
    )
    assert set(wanted.split()) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_holds_exactly_the_arguments(path):
    model_class, config = target(path)
    parameters = inspect.signature(model_class).parameters.values()
    assert {parameter.name for parameter in parameters} == set(config)
    off = (inspect.Parameter.empty, False)  # False: an option that came later, which folders of older runs do not have
    assert all(parameter.default in off for parameter in parameters)
    assert isinstance(model_class(**config), Model)
    assert all("#" in line for line in path.read_text().splitlines() if not line.startswith("_target_"))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 64)])
@pytest.mark.parametrize("path", IMAGE, ids=lambda path: path.stem)
def test_image_networks_take_small_images(path, channels, side, cifar):
    model_class, config = target(path)
    with torch.device("meta"):  # shapes only
        network = model_class(**config).build(replace(cifar, channels=channels, image_size=side, num_outputs=7))
        assert network.training
        assert network(torch.empty(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("path", IMAGE, ids=lambda path: path.stem)
def test_image_networks_compute_numbers_that_depend_on_all_weights(path, digits):
    model_class, config = target(path)
    network = model_class(**config).build(digits)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.get_parameter(next(iter(dict(network.named_parameters())))).grad.abs().sum() > 0
