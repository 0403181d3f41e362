"""Every number of a summary.json beside the same number computed anew from the weights, the masks and the data.

What training only leaves in its log is compared with the log (metrics.jsonl), and options with config.yaml. What cannot
be known from files (how long it took) is listed as not checked, and so is any number that nobody here computes: one
that is added to the summary later does not pass for checked.
"""

import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pruneexp.auxiliary_masks import AUXILIARY_MASKS
from pruneexp.building import build, check_targets
from pruneexp.checksums import check_config, check_files, read_config
from pruneexp.config import Config, auxiliary_keys, dense_config, finished_summary
from pruneexp.datasets.base import Splits
from pruneexp.datasets.fitted import fitted
from pruneexp.experiment import HEADS
from pruneexp.loading import recipe_of
from pruneexp.models.base import Model
from pruneexp.naming import run_folder
from pruneexp.summaries import example_inputs
from pruneexp.verification.counts import broken_masks, counts, macs
from pruneexp.verification.scores import majority_rate, scores

CLOSE = 1e-9
"""How far two numbers may be apart that were counted: rounding of a division."""

LOSS = 1e-4
"""Relative difference of two losses: float32 sums in another order, in batches of another size."""

OTHER_DEVICE = 0.005
"""How far scores may be apart where the run tested on another kind of device: a few examples at the edge."""

TENSORS = ("model.safetensors", "masks.safetensors", AUXILIARY_MASKS, HEADS)

PARTS = ("train", "validation", "test")

UNCHECKED = ("wall_seconds", "resumed_from", "places", "format")
"""Keys of what only the run itself could know."""


@dataclass(frozen=True)
class Check:
    """One number. problem: None where both agree."""

    key: str
    reported: Any
    recomputed: Any
    problem: str | None = None


@dataclass(frozen=True)
class Verification:
    """What came of a folder. checks: numbers computed anew. unchecked: keys of numbers that were not."""

    folder: Path
    checks: list[Check]
    unchecked: list[str]

    @property
    def differences(self) -> list[Check]:
        """The checks that found a difference."""
        return [check for check in self.checks if check.problem]


def verify(folder: Path, *, trust: Sequence[str] = ()) -> Verification:
    """Recomputes the summary of a finished run. trust: as in `pruneexp.load`.

    Raises:
        ValueError: there is no finished run, or its files cannot be read at all.
    """
    summary = finished_summary(folder)
    if summary is None:
        raise ValueError(f"{folder}: no finished run (it has no summary.json); give the folder of one")
    weights, masks = _tensors(folder, "model.safetensors"), _tensors(folder, "masks.safetensors")
    reported = _flat(summary)
    found: dict[str, Any] = dict(counts(weights, masks))
    checks = [_files(folder, summary, name) for name in TENSORS]
    checks += [_edited(folder, summary), _masks(weights, masks), *_layers(folder, weights)]
    recipe, _ = recipe_of(folder, trust=trust, edited=True)  # an edit is a difference to report, not to stop at
    config = read_config(folder)
    for key in ("dataset", *auxiliary_keys(config).values()):
        check_targets(config[key], key, folder / "config.yaml", trust)
    splits = build(config["dataset"], "dataset").load(device=torch.device("cpu"), tokenizer=recipe.tokenizer)
    network = recipe.network(splits.info, pretrained=False)
    network.load_state_dict(weights)
    found |= macs(network, example_inputs(splits, network))
    found |= _of_data(splits, network)
    found |= _of_auxiliaries(folder, config, recipe, splits, weights)
    found |= _of_their_masks(folder, config, masks, weights)
    found |= _of_log(folder, summary) | _of_options(config)
    found |= _of_dense_run(config, recipe, splits)
    device = _device(folder)
    checks += [_compared(key, reported[key], found[key], device) for key in reported if key in found]
    checks += [Check(key, None, found[key], "is missing in summary.json") for key in found if key not in reported]
    numbers = [key for key, value in reported.items() if isinstance(value, int | float) and key not in found]
    return Verification(folder, [check for check in checks if check], numbers)


def _tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / name)
    except Exception as error:  # of safetensors or the file system, whatever the damage
        raise ValueError(f"{folder / name}: cannot be read ({' '.join(str(error).split())}); run it again") from error


def _files(folder: Path, summary: Config, name: str) -> Check | None:
    expected = summary.get("sha256", {}).get(name)
    if expected is None:
        return None
    try:
        check_files(folder, summary, name)
    except ValueError:
        return Check(f"sha256.{name}", expected, None, "the file has another checksum")
    return Check(f"sha256.{name}", expected, expected)


def _edited(folder: Path, summary: Config) -> Check | None:
    try:
        check_config(folder, summary, read_config(folder))
    except ValueError:
        return Check("sha256.config", summary["sha256"]["config"], None, "config.yaml was edited after the run")
    return Check("sha256.config", "", "")


def _masks(weights: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> Check:
    broken = broken_masks(weights, masks)
    problem = f"weights are not zero where the masks prune: {', '.join(broken)}" if broken else None
    return Check("masks", "zero where pruned", None, problem)


def _layers(folder: Path, weights: dict[str, torch.Tensor]) -> list[Check]:
    with (folder / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        own = int((weights[row["name"]] == 0).sum()) if row["name"] in weights else None
        same = own == int(row["zeros"])
        found.append(
            Check(f"layers.csv {row['name']}", int(row["zeros"]), own, None if same else "another number of zeros")
        )
    return found


def _of_data(splits: Splits, network: nn.Module) -> dict[str, Any]:
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


def _of_auxiliaries(
    folder: Path, config: Config, recipe: Model, splits: Splits, weights: dict[str, torch.Tensor]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in auxiliary_keys(config).items():
        node = {option: value for option, value in config[key].items() if option not in ("weight", "batch_size")}
        own = build(node, "dataset").load(device=torch.device("cpu"), tokenizer=recipe.tokenizer)
        own = fitted(own, splits.info)
        heads = {
            path.removeprefix(f"{name}."): tensor
            for path, tensor in _tensors(folder, HEADS).items()
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


def _of_their_masks(
    folder: Path, config: Config, masks: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """What the summary says of auxiliary tasks' masks, which are the target's where they have none of their own."""
    saved = _tensors(folder, AUXILIARY_MASKS) if (folder / AUXILIARY_MASKS).is_file() else {}
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


def _of_log(folder: Path, summary: Config) -> dict[str, Any]:
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


def _of_options(config: Config) -> dict[str, Any]:
    return {
        "sparsity.target": config["method"].get("sparsity"),
        **{key: config[key] for key in ("epochs", "seed")},
        **{key: config["choices"][key] for key in ("method", "model", "dataset")},
    }


def _of_dense_run(config: Config, recipe: Model, splits: Splits) -> dict[str, Any]:
    """The test score of the dense run's own weights, where that run is still there."""
    if config["dense"] in ("none", "pretrained", None):
        return {}
    folder = run_folder(dense_config(config)) if config["dense"] == "train" else Path(config["dense"])
    if not (folder / "model.safetensors").is_file():
        return {}
    network = recipe.network(splits.info, pretrained=False)
    network.load_state_dict(_tensors(folder, "model.safetensors"))
    headline = splits.info.metrics[0]
    return {"dense.name": headline, "dense.value": scores(network, splits.test, splits.info)[headline]}


def _device(folder: Path) -> str:
    try:
        return str(json.loads((folder / "meta.json").read_text())["device"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def _compared(key: str, reported: Any, recomputed: Any, device: str) -> Check:
    if not isinstance(reported, int | float) or not isinstance(recomputed, int | float):
        return Check(key, reported, recomputed, None if reported == recomputed else "differs")
    score = key.startswith(("test.", "headline.", "dense.", "auxiliary."))
    allowed = CLOSE
    if key.endswith("loss"):
        allowed = LOSS * max(1.0, abs(recomputed)) if device == "cpu" else 0.02 * max(1.0, abs(recomputed))
    elif score and device != "cpu":
        allowed = OTHER_DEVICE
    elif score and key.rpartition(".")[2] in ("pearson", "spearman"):
        allowed = LOSS
    same = math.isclose(reported, recomputed, rel_tol=CLOSE, abs_tol=allowed)
    return Check(key, reported, recomputed, None if same else "differs")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values under dotted keys; lists, digests and what only the run could know left out."""
    if isinstance(value, dict):
        return {
            key: item
            for name, inner in value.items()
            if path or name not in (*UNCHECKED, "sha256")
            for key, item in _flat(inner, f"{path}.{name}" if path else name).items()
        }
    return {} if isinstance(value, list) else {path: value}


def main(places: Sequence[Path], *, trust: Sequence[str] = ()) -> int:
    """Verifies runs and prints what came of each: 0 if all agree, 1 on any difference, 2 where there is no run.

    places: run folders, or folders somewhere below which there are some. trust: as in `pruneexp.load`.
    """
    worst = 0
    for folder in [folder for place in places for folder in _runs(place)]:
        try:
            result = verify(folder, trust=trust)
        except ValueError as error:
            print(f"prune-report: {' '.join(str(error).split())}", file=sys.stderr)
            worst = max(worst, 2)
            continue
        for check in result.differences:
            print(f"{folder}: {check.key}: {check.problem}: {check.reported} reported, {check.recomputed} recomputed")
        print(
            f"{folder}: {len(result.checks)} checks, {len(result.differences)} differences; not checked: "
            f"{', '.join([*UNCHECKED, *result.unchecked])}"
        )
        worst = max(worst, int(bool(result.differences)))
    return worst


def _runs(place: Path) -> list[Path]:
    """The runs in a folder; the folder itself where there are none, for the message."""
    below = sorted(path.parent for path in place.rglob("summary.json"))
    return [place] if (place / "summary.json").is_file() else below or [place]
