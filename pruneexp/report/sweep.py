"""The file that a sweep leaves, <name>.sweep.json: its cells by their labels, and what became of each run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruneexp.report.axes import Axes
from pruneexp.report.collect import Found
from pruneexp.report.finished import FinishedRun, LeftOut, read_run
from pruneexp.report.layout import Layout, Place, check

SUFFIX = ".sweep.json"
VERSION = 1
LABELS = Axes(("row",), ("column",))


@dataclass(frozen=True)
class Sweep:
    """A sweep file. content: as prune-run wrote it. results: the run of each of its entries, or why there is none."""

    file: Path
    content: dict[str, Any]
    results: Sequence[FinishedRun | LeftOut]

    @property
    def has_labels(self) -> bool:
        """Whether its cells have labels of a table, and are not only combinations of options."""
        return self.content.get("table") is not None

    @property
    def command(self) -> str:
        """The command line that runs it."""
        return " ".join(["prune-run", *map(str, self.content.get("command") or ())])

    @property
    def found(self) -> Found:
        """Its runs, each once, and the entries that gave none."""
        unique = {str(result.folder): result for result in self.results}.values()
        runs = [result for result in unique if isinstance(result, FinishedRun)]
        return Found(runs, [result for result in unique if isinstance(result, LeftOut)])


def read_sweep(file: Path) -> Sweep:
    """The sweep of a file, with its runs.

    Raises:
        ValueError: there is no such file, or it is no sweep's.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: is damaged ({error}); the same prune-run -m writes it again") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError(f"{file}: is no sweep file of version {VERSION}, as prune-run -m writes it")
    entries = content.get("runs")
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise ValueError(f"{file}: is damaged (runs: want entries with row, column, seed and folder)")
    return Sweep(file, content, [_result(file, entry) for entry in entries])


def by_sweep(sweep: Sweep) -> Layout:
    """The runs of a table's sweep in the cells of the table.

    Raises:
        ValueError: runs would meet in a cell that differ in more than their seed.
    """
    content, entries = sweep.content, sweep.content["runs"]
    cells: dict[Place, list[FinishedRun]] = {}
    pending: dict[Place, list[str]] = {}
    wanted: dict[Place, set[Any]] = {}
    for entry, result in zip(entries, sweep.results, strict=True):
        place = (entry["row"],), (entry["column"],)
        wanted.setdefault(place, set()).add(entry["seed"])
        if isinstance(result, LeftOut):
            pending.setdefault(place, []).append(f"seed {entry['seed']}: {result.reason}")
        elif result not in cells.setdefault(place, []):
            cells[place].append(result)
    layout = Layout(
        LABELS,
        [(label,) for label in content.get("rows") or dict.fromkeys(entry["row"] for entry in entries)],
        [(label,) for label in content.get("columns") or dict.fromkeys(entry["column"] for entry in entries)],
        cells,
        title=str(content.get("title") or content["table"]),
        source=str(content.get("source") or ""),
        reference=content.get("reference"),
        metric=content.get("metric"),
        seeds=max(map(len, wanted.values()), default=None),
        pending=pending,
    )
    check(layout)
    return layout


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and {"row", "column", "seed", "folder"} <= set(entry)


def _result(file: Path, entry: dict[str, Any]) -> FinishedRun | LeftOut:
    """The run of an entry; where it is not finished, the reason as the sweep and the folder know it."""
    error = str(entry.get("error") or "").strip()
    name = f"{entry['row']}, {entry['column']}, seed {entry['seed']}"
    if not isinstance(entry["folder"], str):
        return LeftOut(file.parent / f"({name})", "failed", error or "its options are wrong")
    folder = file.parent / entry["folder"]
    if not folder.is_dir():
        state = entry.get("state")
        return LeftOut(folder, "failed" if state == "failed" else "missing", error or "not started")
    result = read_run(folder)
    if isinstance(result, LeftOut) and entry.get("state") == "failed":
        return LeftOut(folder, "failed", error or result.reason)
    return result
