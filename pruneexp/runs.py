"""A run's folder: the one place where a run's results are, complete or resumable.

config.yaml          resolved and complete
meta.json            versions, commit, device, command line, start
metrics.jsonl        one line per evaluation
checkpoint.pt        while running
model.safetensors    final weights under dense names
masks.safetensors    bool, one per pruned parameter
auxiliary_masks.safetensors    of auxiliary tasks that have others than the target, "<task>.<parameter>"
heads.safetensors    with auxiliary tasks: their output layers and batch-norm statistics, "<task>.<name in the model>"
layers.csv           the per-layer table
accuracy_vs_sparsity.png
summary.json         written last: its presence means done
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pruneexp.loggers.base import Logger
from pruneexp.tensor_files import save_tensors


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` at the end, at once and on disk, or is removed if an exception comes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


class Run:
    """One run and its folder. Only the main process writes; the others see the same folder."""

    def __init__(self, folder: Path, config: dict[str, Any], logger: Logger, *, is_main: bool = True) -> None:
        self.folder = folder
        self.config = config
        self.logger = logger
        self.is_main = is_main

    @property
    def done(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / "summary.json").is_file()

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run."""
        return json.loads((self.folder / "summary.json").read_text())

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def start(self, *, device: str, resumed_from: int | None) -> None:
        """Makes the folder, says in it how the run came to be, and cuts metrics of steps that will be done again."""
        if not self.is_main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        write_json(
            self.folder / "meta.json", {**describe_environment(), "device": device, "resumed_from": resumed_from}
        )
        kept = [row for row in self.rows() if resumed_from is not None and row["step"] <= resumed_from]
        with replacing(self.folder / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        group = self.config["group"] or self.config["experiment_name"]
        self.logger.start(
            name=self.folder.name, group=group, folder=self.folder, config=self.config, resumed_from=resumed_from
        )

    def log(self, row: dict[str, Any]) -> None:
        """Appends one line to metrics.jsonl and hands it to the logger."""
        if self.is_main:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.logger.log(row)

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint."""
        if self.is_main:
            with replacing(self.folder / "checkpoint.pt") as temporary:
                torch.save(state, temporary)

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, None if there is none.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path}: is damaged ({type(error).__name__}); force=true starts the run over") from error

    def save_weights(self, state: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """Writes model.safetensors and masks.safetensors."""
        self.save_tensors("model.safetensors", state)
        self.save_tensors("masks.safetensors", masks)

    def save_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Writes a .safetensors file of that name."""
        with replacing(self.folder / name) as temporary:
            save_tensors(tensors, temporary)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary, which makes the run done, and removes the checkpoint."""
        write_json(self.folder / "summary.json", summary)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
        self.logger.finish(summary, self.folder)

    def clear(self) -> None:
        """Removes what a run wrote, so that it starts over (force=true). Files of others stay."""
        if self.is_main:
            tensors = [f"{name}.safetensors" for name in ("model", "masks", "auxiliary_masks", "heads")]
            for name in ("summary.json", "checkpoint.pt", "metrics.jsonl", *tensors):
                (self.folder / name).unlink(missing_ok=True)


def describe_environment() -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, commit, machine, command line, time of start."""
    from importlib.metadata import version

    packages = ("pruneexp", "torch", "torchvision", "transformers", "datasets", "timm", "accelerate", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": _commit(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, with "+" if it is changed; None when installed."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return head + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows that share their keys as CSV, whole or not at all."""
    import csv

    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
