"""A run's folder: the one place where a run's results are, complete or resumable.

config.yaml          resolved and complete
meta.json            versions, commit, device, command line, start
metrics.jsonl        one line per evaluation
checkpoint.pt        while running; checkpoint.previous.pt is the one before it, should the disk damage the last
model.safetensors    final weights under dense names
masks.safetensors    bool, one per pruned parameter
auxiliary_masks.safetensors    of auxiliary tasks that have others than the target, "<task>.<parameter>"
heads.safetensors    with auxiliary tasks: their output layers and batch-norm statistics, "<task>.<name in the model>"
layers.csv           the per-layer table
accuracy_vs_sparsity.png
summary.json         written last: its presence means done
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pruneexp.checkpoint_files import read_checkpoint, write_checkpoint
from pruneexp.checksums import digests
from pruneexp.environment import describe_environment, place_in_words, place_of
from pruneexp.leftovers import CHECKPOINT, PREVIOUS, clear_leftovers
from pruneexp.loggers.base import Logger
from pruneexp.tensor_files import save_tensors
from pruneexp.whole_files import replacing, write_json

LOG = logging.getLogger("pruneexp")

CHECKPOINT_FORMAT = 1  # raised by a version whose checkpoints this one would misread
TENSOR_FILES = ("model.safetensors", "masks.safetensors", "auxiliary_masks.safetensors", "heads.safetensors")


class Run:
    """One run and its folder. Only the main process writes; the others see the same folder."""

    def __init__(self, folder: Path, config: dict[str, Any], logger: Logger, *, is_main: bool = True) -> None:
        self.folder = folder
        self.config = config
        self.logger = logger
        self.is_main = is_main
        self.places: list[dict[str, Any]] = []
        """Where the run was computed: one entry for each change, `step` the first step done there."""

    @property
    def done(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / "summary.json").is_file()

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run."""
        return json.loads((self.folder / "summary.json").read_text())

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. One that a full disk or a dying machine left incomplete is left out."""
        path, rows = self.folder / "metrics.jsonl", []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                LOG.warning("%s: a line is incomplete and left out: %.40s", path, line)
        return [row for row in rows if isinstance(row, dict) and "step" in row]

    def start(self, *, device: str, resumed_from: int | None) -> None:
        """Makes the folder, says in it how the run came to be, and cuts metrics of steps that will be done again."""
        if not self.is_main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.folder)
        self._note_place(device, resumed_from or 0)
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

    def _note_place(self, device: str, step: int) -> None:
        """Adds to `places` where the run is computed from this step on, if that is somewhere else than before."""
        here = place_of(device)
        if self.places and {**self.places[-1], "step": None} != {"step": None, **here}:
            LOG.warning(
                "goes on at step %d on %s, after %s: the result is not bit for bit that of an undisturbed run",
                step,
                place_in_words(here),
                place_in_words(self.places[-1]),
            )
        elif self.places:
            return
        self.places = [*self.places, {"step": step, **here}]

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint, and keeps the one before it."""
        if self.is_main:
            path = self.folder / CHECKPOINT
            about = {"format": CHECKPOINT_FORMAT, "run": self.folder.name, "places": self.places}
            with replacing(path) as temporary:
                write_checkpoint({**about, **state}, temporary)
                if path.is_file():
                    path.replace(self.folder / PREVIOUS)

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, None if there is none; the one before it where the last is damaged.

        Raises:
            ValueError: none can be read, or it is another run's or a later version's.
        """
        there = [path for name in (CHECKPOINT, PREVIOUS) if (path := self.folder / name).is_file()]
        damage: list[str] = []
        for path in there:
            try:
                state = read_checkpoint(path, device)
            except Exception as error:  # a damaged file can raise nearly anything
                damage.append(f"{path}: is damaged ({type(error).__name__})")
                continue
            self._check_checkpoint(path, state)
            if damage:
                LOG.warning("%s; the run goes on from the checkpoint before it, step %d", damage[0], state["step"])
                if self.is_main:
                    there[0].unlink(missing_ok=True)  # or the next one saved would push the good one out
            self.places = state.get("places", [])
            return state
        if damage:
            raise ValueError(f"{damage[0]} and there is no other; force=true starts the run over")
        return None

    def _check_checkpoint(self, path: Path, state: dict[str, Any]) -> None:
        if state.get("format", CHECKPOINT_FORMAT) > CHECKPOINT_FORMAT:
            raise ValueError(
                f"{path}: was written by a later pruneexp (format {state['format']}, this one reads "
                f"{CHECKPOINT_FORMAT}); install that version, or start over with force=true"
            )
        if state.get("run", self.folder.name) != self.folder.name:
            raise ValueError(f"{path}: belongs to the run {state['run']}; remove it, or start over with force=true")

    def save_weights(self, state: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """Writes model.safetensors and masks.safetensors."""
        self.save_tensors("model.safetensors", state)
        self.save_tensors("masks.safetensors", masks)

    def save_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Writes a .safetensors file of that name."""
        with replacing(self.folder / name) as temporary:
            save_tensors(tensors, temporary)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary, which makes the run done, and removes the checkpoints."""
        write_json(self.folder / "summary.json", {**summary, "sha256": digests(self.folder, TENSOR_FILES, self.config)})
        clear_leftovers(self.folder)
        self.logger.finish(summary, self.folder)

    def clear(self) -> None:
        """Removes what a run wrote, so that it starts over (force=true). Files of others stay."""
        if self.is_main:
            for name in ("summary.json", CHECKPOINT, PREVIOUS, "metrics.jsonl", *TENSOR_FILES):
                (self.folder / name).unlink(missing_ok=True)
