"""Datasets built as the command line builds them: the YAML file's options, some of them changed."""

import importlib
from pathlib import Path

import pytest
import torch
import yaml

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


@pytest.fixture
def make():
    def make(name, **changes):
        options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        module, _, target = options.pop("_target_").rpartition(".")
        assert changes.keys() <= options.keys()
        return getattr(importlib.import_module(module), target)(**(options | changes))

    return make


@pytest.fixture
def cpu():
    return torch.device("cpu")
