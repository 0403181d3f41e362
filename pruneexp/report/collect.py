"""The runs in some folders, and what else lies there."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pruneexp.report.finished import FinishedRun, LeftOut, read_run

MARKS = ("config.yaml", "summary.json", "metrics.jsonl", "meta.json")
"""A folder with any of these files might be a run."""


@dataclass(frozen=True)
class Found:
    """What lies in the folders: finished runs, and the others with the reason."""

    runs: list[FinishedRun]
    left_out: list[LeftOut]


def find_runs(places: Sequence[str]) -> Found:
    """All runs in these places, each once. places: runs, folders with runs at any depth, or globs for such.

    Raises:
        ValueError: a place is not there, or none of them holds anything that looks like a run.
    """
    folders = {os.path.realpath(folder): folder for place in places for folder in _folders(place)}
    results = [read_run(folder) for folder in folders.values()]
    if not results:
        raise ValueError(f"{' '.join(places)}: no runs there; give folders that prune-run wrote, or a folder of them")
    runs = [result for result in results if isinstance(result, FinishedRun)]
    kept, duplicates = _latest(runs)
    return Found(kept, [result for result in results if isinstance(result, LeftOut)] + duplicates)


def _folders(place: str) -> Iterator[Path]:
    """The folders of a place that might be runs."""
    paths = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    if not paths:
        raise ValueError(f"{place}: no such folder; give a run's folder, a folder of runs, or a glob in quotes")
    for path in map(Path, paths):
        for current, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if set(MARKS) & set(files):
                yield Path(current)
                if {"summary.json", "metrics.jsonl"} & set(files):
                    folders.clear()  # of a run: its export, its W&B files


def _latest(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[LeftOut]]:
    """Of runs with the same options and seed the one started last, since a copy is no second sample; and the others."""
    kept: dict[str, FinishedRun] = {}
    duplicates = []
    for run in runs:
        key = json.dumps([run.seed, run.decisions], sort_keys=True, default=str)
        other = kept.setdefault(key, run)
        if other is not run:
            older, kept[key] = sorted((run, other), key=lambda one: str(one.meta.get("start", "")))
            duplicates.append(LeftOut(older.folder, "duplicate", f"same options and seed as {kept[key].folder}"))
    return list(kept.values()), duplicates
