"""Kinds of data for models to fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pruneexp.datasets.base import DataInfo

CONFIGS = Path(__file__).parents[2] / "configs" / "model"


@pytest.fixture
def cifar() -> DataInfo:
    return DataInfo(kind="image", num_outputs=10, metrics=("accuracy",), channels=3, image_size=32)


@pytest.fixture
def digits(cifar: DataInfo) -> DataInfo:
    return replace(cifar, channels=1, image_size=8)


@pytest.fixture
def imagenet(cifar: DataInfo) -> DataInfo:
    return replace(cifar, num_outputs=1000, image_size=224)


@pytest.fixture
def sentences() -> DataInfo:
    return DataInfo(kind="text", num_outputs=3, metrics=("accuracy",))


@pytest.fixture
def arguments():
    """Name of a config and changes -> the arguments that the model's class gets."""

    def read(name: str, /, **changes):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        config.pop("defaults", None)
        config.pop("_target_")
        return {**config, **changes}

    return read
