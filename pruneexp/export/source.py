"""A finished run with everything that testing its model takes."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pruneexp.building import build, check_targets
from pruneexp.checksums import check_files, read_config
from pruneexp.config import finished_summary
from pruneexp.datasets.base import Draw, Splits
from pruneexp.loading import load, recipe_of
from pruneexp.masks import Masks
from pruneexp.models.errors import first_line
from pruneexp.tasks.base import Task
from pruneexp.tasks.build import task_for


@dataclass(frozen=True)
class Source:
    """A finished run: its folder, config and summary, the masked network and its masks, and its data."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    network: nn.Module
    masks: Masks
    splits: Splits
    task: Task


def open_run(folder: Path, device: torch.device, trust: Collection[str] = ()) -> Source:
    """A finished run with everything that testing it takes. device: where its data goes. trust: as in `load`.

    Raises:
        ValueError: no run with masks is there, files are damaged or not to be trusted, or its data is not to be had.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a finished run")
    network = load(folder, trust=trust)
    summary = finished_summary(folder)
    if summary is None:
        raise ValueError(f"{folder}: is an export already; give the folder of the run")
    check_files(folder, summary, "masks.safetensors")
    masks = _masks(folder)
    config = read_config(folder)
    recipe, info = recipe_of(folder, trust=trust)
    check_targets(config["dataset"], "dataset", folder / "config.yaml", trust)
    dataset = build(config["dataset"], "dataset")
    dataset.check()
    splits = dataset.load(device=device, tokenizer=recipe.tokenizer)
    if splits.info != info:
        raise ValueError(f"{folder}: dataset={config['choices']['dataset']} is not the data that the run was made with")
    return Source(folder, config, summary, network, masks, splits, task_for(splits.info, label_smoothing=0.0))


def _masks(folder: Path) -> Masks:
    path = folder / "masks.safetensors"
    if not path.is_file():
        raise ValueError(f"{folder}: has no masks.safetensors; give the folder of a run that pruned something")
    try:
        masks = load_file(path)
    except Exception as error:  # of safetensors, whatever the damage
        raise ValueError(f"{path}: is damaged ({first_line(error)}); run it again") from error
    if not masks:
        raise ValueError(f"{folder}: pruned nothing, its masks are empty; give the folder of a run that did")
    return masks


def first_examples(splits: Splits, size: int, device: torch.device) -> Any:
    """The inputs of the first test examples."""
    count = min(size, len(splits.test))
    draw = Draw(torch.arange(count), slice(0, count), seed=None)
    return _moved(next(iter(splits.test.serve([draw])))["inputs"], device)


def _moved(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, dict):
        return {key: value.to(device) for key, value in inputs.items()}
    return inputs.to(device)
