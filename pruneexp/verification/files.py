"""The files of a finished run: that they are there, that they are what they were, and that they fit each other."""

import csv
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from pruneexp.auxiliary_masks import AUXILIARY_MASKS
from pruneexp.checksums import check_config, check_files, read_config
from pruneexp.config import Config
from pruneexp.experiment import HEADS
from pruneexp.verification.checks import Check
from pruneexp.verification.counts import broken_masks

TENSORS = ("model.safetensors", "masks.safetensors", AUXILIARY_MASKS, HEADS)


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The content of a .safetensors file. Raises ValueError if it cannot be read."""
    try:
        return load_file(folder / name)
    except Exception as error:  # of safetensors or the file system, whatever the damage
        raise ValueError(f"{folder / name}: cannot be read ({' '.join(str(error).split())}); run it again") from error


def file_checks(folder: Path, summary: Config, weights: dict[str, Tensor], masks: dict[str, Tensor]) -> list[Check]:
    """Checksums, masks against weights, and layers.csv. weights, masks: the content of the run's two files."""
    sums = [_checksum(folder, summary, name) for name in TENSORS]
    found = [*sums, _edited(folder, summary), _masks(weights, masks), *_layers(folder, weights)]
    return [check for check in found if check]


def _checksum(folder: Path, summary: Config, name: str) -> Check | None:
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


def _masks(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> Check:
    broken = broken_masks(weights, masks)
    problem = f"weights are not zero where the masks prune: {', '.join(broken)}" if broken else None
    return Check("masks", "zero where pruned", None, problem)


def _layers(folder: Path, weights: dict[str, Tensor]) -> list[Check]:
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
