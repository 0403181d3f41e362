"""One run, read back from its folder.

Nothing here trusts a folder: whatever lies in it, damaged, half written or of another program, becomes a `LeftOut` with
the reason, never an exception.
"""

import csv
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pruneexp.report.options import Options, deciding_options, is_dense

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with libyaml

OPTIONAL = {"meta": "meta.json", "export": "export/export.json"}
"""Files that a finished run need not have."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run, as its files say. decisions: all that decides its result but the seed, by the option's name. meta
    and export are empty where there is no such file, or none that reads."""

    folder: Path
    config: dict[str, Any]
    decisions: Options
    summary: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """The eight hex digits at the end of the folder's name; the whole name where it has none."""
        found = re.search(r"-([0-9a-f]{8})$", self.folder.name)
        return found.group(1) if found else self.folder.name

    @property
    def seed(self) -> int:
        """What its randomness started from."""
        return self.config["seed"]

    @property
    def commit(self) -> str:
        """The commit of the code that made it, "+" behind it if there were changes; "" where that is not known."""
        return str(self.meta.get("commit") or "")

    @property
    def short_commit(self) -> str:
        """Its first eight digits, and the "+"."""
        return self.commit[:8] + ("+" if self.commit.endswith("+") else "")

    @property
    def command(self) -> str:
        """The command line that made it; "" where that is not known."""
        words = self.meta.get("command")
        return " ".join(map(str, words)) if isinstance(words, list) else ""

    @property
    def is_dense(self) -> bool:
        """Whether nothing was pruned."""
        return is_dense(self.config)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that read, one per evaluation."""
        return _read_rows(self.folder / "metrics.jsonl")

    @cached_property
    def layers(self) -> list[dict[str, str]]:
        """The lines of layers.csv; empty where there is no such file."""
        try:
            with (self.folder / "layers.csv").open(newline="", encoding="utf-8") as file:
                return [{key or "": value or "" for key, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, UnicodeDecodeError, csv.Error):
            return []


@dataclass(frozen=True)
class LeftOut:
    """A folder that gave no number. kind: unfinished, broken, foreign or duplicate."""

    folder: Path
    kind: str
    reason: str


class _UnusableError(Exception):
    """The kind of a LeftOut, and its reason."""


def read_run(folder: Path) -> FinishedRun | LeftOut:
    """What is in a folder that might be a run."""
    try:
        config = _config(folder)
        if not (folder / "summary.json").exists():
            raise _UnusableError("unfinished", _progress(folder, config))
        summary = _summary(folder)
        decisions = _decisions(config)
    except _UnusableError as error:
        return LeftOut(folder, *error.args)
    optional = {name: _read_json(folder / file) for name, file in OPTIONAL.items()}
    given = {name: value for name, value in optional.items() if isinstance(value, dict)}
    return FinishedRun(folder, config, decisions, summary, **given)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), YAML_LOADER)
    except FileNotFoundError:
        raise _UnusableError("foreign", "has no config.yaml, so prune-run did not write it") from None
    except Exception as error:  # of the file system, the encoding or the parser
        raise _UnusableError("broken", f"config.yaml cannot be read: {_first_line(error)}") from error
    nodes = ("method", "model", "dataset", "choices")
    is_ours = isinstance(config, dict) and all(isinstance(config.get(key), dict) for key in nodes)
    if not is_ours or not isinstance(config.get("seed"), int):
        raise _UnusableError("foreign", "config.yaml is not one of prune-run")
    return config


def _summary(folder: Path) -> dict[str, Any]:
    summary = _read_json(folder / "summary.json")
    if isinstance(summary, str):
        raise _UnusableError("broken", f"summary.json cannot be read: {summary}")
    for names in (("headline", "name"), ("headline", "value"), ("sparsity", "prunable")):
        value: Any = summary
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, str if names[-1] == "name" else int | float):
            raise _UnusableError("broken", f"summary.json has no {'.'.join(names)}")
    return summary


def _decisions(config: dict[str, Any]) -> Options:
    try:
        return deciding_options(config)
    except Exception as error:  # a value that prune-run would not have written
        raise _UnusableError("broken", f"config.yaml is damaged: {_first_line(error)}") from error


def _progress(folder: Path, config: dict[str, Any]) -> str:
    """How far a run without a summary has come. Its last step follows from how many there are in an epoch."""
    rows = [row for row in _read_rows(folder / "metrics.jsonl") if isinstance(row.get("step"), int)]
    if not rows:
        return "running or interrupted before its first evaluation"
    last, epochs = rows[-1], config.get("epochs")
    epoch = last.get("epoch")
    known = isinstance(epoch, int | float) and epoch > 0 and isinstance(epochs, int | float)
    total = f" of {max(round(last['step'] / epoch * epochs), 1):,}" if known else ""
    return f"running or interrupted at step {last['step']:,}{total}"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that are JSON objects; one that is being written may end in half a line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _read_json(path: Path) -> Any:
    """The object in a file, or a text that says why there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return _first_line(error)
    return value if isinstance(value, dict) else "is no JSON object"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
