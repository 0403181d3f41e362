"""The numbers of a summary, each computed anew or read from where else it stands: dotted key -> number."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.auxiliary_masks import AUXILIARY_MASKS
from pruneexp.building import build
from pruneexp.config import Config, auxiliary_keys, dense_config
from pruneexp.datasets.base import Splits
from pruneexp.datasets.fitted import fitted
from pruneexp.experiment import HEADS
from pruneexp.models.base import Model
from pruneexp.naming import run_folder
from pruneexp.verification.files import tensors
from pruneexp.verification.scores import majority_rate, scores

PARTS = ("train", "validation", "test")


def of_data(splits: Splits, network: nn.Module) -> dict[str, Any]:
    """Scores on the test split, and what the summary says of the data. network: with the run's weights."""
    test = scores(network, splits.test, splits.info)
    found = {f"test.{name}": value for name, value in test.items()}
    found |= {"headline.name": splits.info.metrics[0], "headline.value": test[splits.info.metrics[0]]}
    found |= {f"examples.{name}": len(getattr(splits, name)) for name in PARTS}
    found |= {
        f"info.{key}": getattr(splits.info, key)
        for key in ("kind", "num_outputs", "regression", "channels", "image_size")
    }
    if splits.info.kind == "text":
        positions = getattr(getattr(network, "config", None), "max_position_embeddings", math.inf)
        found["macs.tokens"] = min(128, positions)
    return found if splits.info.regression else found | {"majority_rate": majority_rate(splits.test)}


def of_auxiliaries(
    folder: Path, config: Config, recipe: Model, splits: Splits, weights: dict[str, Tensor]
) -> dict[str, Any]:
    """Scores of the auxiliary tasks, with heads of their own on the run's weights, and what is said of their data."""
    found: dict[str, Any] = {}
    for name, key in auxiliary_keys(config).items():
        node = {option: value for option, value in config[key].items() if option not in ("weight", "batch_size")}
        own = build(node, "dataset").load(device=torch.device("cpu"), tokenizer=recipe.tokenizer)
        own = fitted(own, splits.info)
        heads = {
            path.removeprefix(f"{name}."): tensor
            for path, tensor in tensors(folder, HEADS).items()
            if path.startswith(f"{name}.")
        }
        network = recipe.network(own.info, pretrained=False)
        network.load_state_dict(weights | heads)
        test = scores(network, own.test, own.info)
        found |= {f"auxiliary.{name}.test.{metric}": value for metric, value in test.items()}
        found |= {f"auxiliary.{name}.headline.value": test[own.info.metrics[0]]}
        found |= {
            f"auxiliary.{name}.examples.{part}": len(getattr(own, part)) for part in ("train", "validation", "test")
        }
        found |= {
            f"auxiliary.{name}.weight": config[key]["weight"],
            f"auxiliary.{name}.batch_size": config[key]["batch_size"] or config["batch_size"],
        }
    return found


def of_their_masks(
    folder: Path, config: Config, masks: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, Any]:
    """What the summary says of auxiliary tasks' masks, which are the target's where they have none of their own."""
    saved = tensors(folder, AUXILIARY_MASKS) if (folder / AUXILIARY_MASKS).is_file() else {}
    whole = {name: mask.expand(weights[name].shape) for name, mask in masks.items()}
    total = sum(mask.numel() for mask in whole.values())
    found: dict[str, Any] = {}
    for task in auxiliary_keys(config):
        theirs = {name: saved.get(f"{task}.{name}") for name in whole}
        own = {name: mask.expand(whole[name].shape) for name, mask in theirs.items() if mask is not None}
        kept = sum(int(own.get(name, mask).sum()) for name, mask in whole.items())
        both = sum(int((own.get(name, mask) & mask).sum()) for name, mask in whole.items())
        found |= {
            f"auxiliary.{task}.mask.own": bool(own),
            f"auxiliary.{task}.mask.kept": kept,
            f"auxiliary.{task}.mask.sparsity": 1 - kept / total if total else 0.0,
            f"auxiliary.{task}.mask.shared": both / kept if kept else 1.0,
        }
    return found


def of_log(folder: Path, summary: Config) -> dict[str, Any]:
    """Steps and validation scores as they stand in metrics.jsonl."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last, headline = rows[-1], summary["headline"]["name"]
    found = {
        f"validation.final.{key.removeprefix('validation/')}": value
        for key, value in last.items()
        if key.startswith("validation/")
    }
    values = [row.get(f"validation_hard/{headline}", row[f"validation/{headline}"]) for row in rows]
    first = values.index(max(values))
    best = {"value": values[first], "step": rows[first]["step"], "sparsity": rows[first]["sparsity/prunable"]}
    return {**found, **{f"validation.best.{key}": value for key, value in best.items()}, "steps": last["step"]}


def of_options(config: Config) -> dict[str, Any]:
    """What the summary repeats of config.yaml."""
    return {
        "sparsity.target": config["method"].get("sparsity"),
        **{key: config[key] for key in ("epochs", "seed")},
        **{key: config["choices"][key] for key in ("method", "model", "dataset")},
    }


def of_dense_run(config: Config, recipe: Model, splits: Splits) -> dict[str, Any]:
    """The test score of the dense run's own weights, where that run is still there."""
    if config["dense"] in ("none", "pretrained", None):
        return {}
    folder = run_folder(dense_config(config)) if config["dense"] == "train" else Path(config["dense"])
    if not (folder / "model.safetensors").is_file():
        return {}
    network = recipe.network(splits.info, pretrained=False)
    network.load_state_dict(tensors(folder, "model.safetensors"))
    headline = splits.info.metrics[0]
    return {"dense.name": headline, "dense.value": scores(network, splits.test, splits.info)[headline]}
