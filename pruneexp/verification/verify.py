"""Every number of a summary.json beside the same number computed anew from the weights, the masks and the data.

What training only leaves in its log is compared with the log (metrics.jsonl), and options with config.yaml. What cannot
be known from files (how long it took) is listed as not checked, and so is any number that nobody here computes: one
that is added to the summary later does not pass for checked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pruneexp.building import build, check_targets
from pruneexp.checksums import read_config
from pruneexp.config import auxiliary_keys, finished_summary
from pruneexp.loading import recipe_of
from pruneexp.summaries import example_inputs
from pruneexp.verification.checks import Check, compared, flat
from pruneexp.verification.counts import counts, macs
from pruneexp.verification.files import file_checks, tensors
from pruneexp.verification.recompute import (
    of_auxiliaries,
    of_data,
    of_dense_run,
    of_log,
    of_options,
    of_their_masks,
)


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
    weights, masks = tensors(folder, "model.safetensors"), tensors(folder, "masks.safetensors")
    reported = flat(summary)
    found: dict[str, Any] = dict(counts(weights, masks))
    checks = file_checks(folder, summary, weights, masks)
    recipe, _ = recipe_of(folder, trust=trust, edited=True)  # an edit is a difference to report, not to stop at
    config = read_config(folder)
    for key in ("dataset", *auxiliary_keys(config).values()):
        check_targets(config[key], key, folder / "config.yaml", trust)
    splits = build(config["dataset"], "dataset").load(device=torch.device("cpu"), tokenizer=recipe.tokenizer)
    network = recipe.network(splits.info, pretrained=False)
    network.load_state_dict(weights)
    found |= macs(network, example_inputs(splits, network))
    found |= of_data(splits, network)
    found |= of_auxiliaries(folder, config, recipe, splits, weights)
    found |= of_their_masks(folder, config, masks, weights)
    found |= of_log(folder, summary) | of_options(config)
    found |= of_dense_run(config, recipe, splits)
    device = _device(folder)
    checks += [compared(key, reported[key], found[key], device) for key in reported if key in found]
    checks += [Check(key, None, found[key], "is missing in summary.json") for key in found if key not in reported]
    numbers = [key for key, value in reported.items() if isinstance(value, int | float) and key not in found]
    return Verification(folder, checks, numbers)


def _device(folder: Path) -> str:
    try:
        return str(json.loads((folder / "meta.json").read_text())["device"])
    except (OSError, ValueError, KeyError):
        return "unknown"
