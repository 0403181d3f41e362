"""Auxiliary tasks of an experiment: from the options of `auxiliary=...` to data, tasks and heads."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from pruneexp.building import build
from pruneexp.config import Config, ConfigError, auxiliary_keys
from pruneexp.datasets.base import TARGET, DataInfo, Dataset, Splits
from pruneexp.datasets.fitted import fitted
from pruneexp.models.base import Model
from pruneexp.models.heads import Heads
from pruneexp.tasks.base import Task
from pruneexp.tasks.build import task_for
from pruneexp.tasks.multi_task import MultiTask


@dataclass(frozen=True)
class Options:
    """What an auxiliary task has besides its data. weight: of its loss. batch_size: None for that of the target."""

    weight: float
    batch_size: int | None

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"dataset.weight={self.weight}: must not be negative")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"dataset.batch_size={self.batch_size}: must be at least 1")


@dataclass(frozen=True)
class Auxiliary:
    """An auxiliary task before its data is read. key: of the config that its options stand under."""

    key: str
    dataset: Dataset
    options: Options


@dataclass(frozen=True)
class Loaded:
    """An auxiliary task with its data. batch_size: over all processes."""

    splits: Splits
    task: Task
    weight: float
    batch_size: int


def build_auxiliaries(config: Config, kind: str) -> dict[str, Auxiliary]:
    """The auxiliary tasks of a config by name. Reads no data. kind: of the target's data, "image" or "text".

    Raises:
        ConfigError: an option is wrong, data is missing, or is of another kind.
    """
    found = {}
    for name, key in auxiliary_keys(config).items():
        node = dict(config[key])
        own = {option: node.pop(option) for option in ("weight", "batch_size") if option in node}
        with named(key):
            options = build({"_target_": f"{__name__}.Options", **own}, key)
            dataset = build(node, key)
            if dataset.kind != kind:
                raise ConfigError(f"{key}={name}: holds {dataset.kind}s, but the target {kind}s; take one of {kind}s")
            dataset.check()
        found[name] = Auxiliary(key, dataset, options)
    return found


def load_auxiliary(
    auxiliary: Auxiliary, config: Config, model: Model, *, target: DataInfo, device: torch.device
) -> Loaded:
    """The task with its data, images as `target`'s, texts in the tokens of the model.

    Raises:
        ConfigError: the data is damaged or does not fit the target's.
    """
    with named(auxiliary.key):
        splits = fitted(auxiliary.dataset.load(device=device, tokenizer=model.tokenizer), target)
        smoothing = 0.0 if splits.info.regression else float(config["label_smoothing"])  # values cannot be smoothed
        task = task_for(splits.info, label_smoothing=smoothing)
    options = auxiliary.options
    return Loaded(splits, task, options.weight, options.batch_size or config["batch_size"])


def multi_task(
    target: Task, auxiliary: Mapping[str, Loaded], network: nn.Module, model: Model, weight: float | None
) -> MultiTask:
    """The target and its auxiliary tasks on `network`, with new heads. weight: of the target's loss; None for 1."""
    donors = {name: model.network(one.splits.info, pretrained=False) for name, one in auxiliary.items()}
    tasks = {name: one.task for name, one in auxiliary.items()}
    weights = {TARGET: 1.0 if weight is None else weight, **{name: one.weight for name, one in auxiliary.items()}}
    return MultiTask(target, tasks, weights=weights, heads=Heads(network, donors))


@contextmanager
def named(key: str) -> Iterator[None]:
    """A context in which datasets' errors name the options under `key`, where datasets think they are `dataset`."""
    try:
        yield
    except ValueError as error:
        message = re.sub(r"(?<![\w./-])dataset(?=[.=])", key, str(error).removeprefix(f"{key}: "))
        raise ConfigError(message if message.startswith(key) else f"{key}: {message}") from error
