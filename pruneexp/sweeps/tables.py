"""Tables: what configs/table/<name>.yaml says, and the cells that come of it.

A table file has these keys, each of which may be left out:

    title      of the table
    source     one line: the paper's table that it repeats, and what is ours in it
    reference  pruneexp/report/references/<reference>.yaml holds the paper's numbers; null = none
    metric     name of a test metric, as in `test` of summary.json; null = the headline
    folder     the experiment_name of its runs; null = the table's name. Tables that share runs share it
    common     overrides of every run
    rows       label -> overrides: a text, or a list of those that go together
    columns    the same; or row label -> overrides, where they depend on the row (without a row, there is no such cell)
    seeds      a list; every cell is run with each
    sizes      name -> keys as above that take the place of the table's own with size=<name>

`rows` and `columns` may also be lists of such mappings, which stands for every combination, labels joined by ", ".
An override is a text as on the command line: "sparsity=0.9". "~sparsity" withdraws an earlier one (common, row,
column). Options of an auxiliary task (`auxiliary.path=...`) go to the cells that have one, or may from an experiment.

What the command line gives besides comes on top. An option that rows or columns set selects those that set it to a
given value (`sparsity=0.9` of columns 0.8, 0.9, 0.95); if none does, the given value takes the place of theirs and
enters the labels. Any other option replaces what the table says; several values of it make several rows.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pruneexp.config import ConfigError
from pruneexp.naming import LOCATION_KEYS
from pruneexp.sweeps.cells import Cell, Part, Table, joined, plain
from pruneexp.sweeps.given import Given, narrowed

KEYS = {
    "title": str | None,
    "source": str | None,
    "reference": str | None,
    "metric": str | None,
    "folder": str | None,
    "common": list,
    "rows": dict | list,
    "columns": dict | list,
    "seeds": list | None,
    "sizes": dict,
}
DEFAULTS = {"common": [], "rows": {"": []}, "columns": {"": []}, "sizes": {}}
FULL = "full"  # the size that a table file describes outside `sizes`

WITHDRAWN = "~"  # before the name of an option in a table

LEFT_OUT = {"output_dir", "experiment_name", "group", "device", "compile", "force", "logger"} | LOCATION_KEYS
"""Options that leave a sweep the one it is, and its file the name it has."""


def expand(name: str | None, node: Mapping[str, Any] | None, size: str, given: Given) -> Table:
    """The table of a config node, in a size, with what the command line gives on top; without a node, a plain grid.

    Raises:
        ConfigError: the node is no table, has no such size, or no cells.
    """
    of_table = node is not None
    node = _checked(name, dict(node or {}), size)
    seeds = given.get("seed") or [str(seed) for seed in node["seeds"] or []]
    common = _overrides(node["common"], name)
    rows, columns = _parts(node["rows"], name), _parts(node["columns"], name)
    cells = []
    for row, column in itertools.product(rows, columns):
        share = _share(column, row)
        if share is not None:
            row_part = Part(row[0], _overrides(row[1], name))
            cells.append(Cell(row_part, Part(column[0], _overrides(share, name))))
    for key, values in given.items():
        if key != "seed":
            cells = narrowed(cells, key, values)
    if not cells:
        raise ConfigError(f"table={name}: has no cells; it needs rows and columns")
    cells = [_complete(cell, common, of_table=of_table) for cell in cells]
    cells = list({(cell.row.label, cell.column.label): cell for cell in cells}.values())
    if seeds:
        cells = [replace(cell, overrides=joined(cell.overrides, {"seed": seed})) for cell in cells for seed in seeds]
    about = {key: node[key] for key in ("title", "source", "reference", "metric")}
    folder = node["folder"] or name
    return Table(name, size, about, f"{folder}_{size}" if folder and size != FULL else folder, cells)


def file_name(table: Table, node: Mapping[str, Any] | None, given: Given) -> str:
    """The name of a table's sweep file, without its ending.

    It is <table>, or <table>-<size>; with a hash where the command line selects or changes cells, or makes up the grid.
    """
    kept = {
        key: values for key, values in given.items() if not {plain(key).split(".")[end] for end in (0, -1)} & LEFT_OUT
    }
    words = [cell.words() for cell in expand(table.name, node, table.size, kept).cells]
    base = "-".join([table.name or "sweep", *([table.size] if table.size != FULL else [])])
    if table.name and words == [cell.words() for cell in expand(table.name, node, table.size, {}).cells]:
        return base
    return f"{base}-{hashlib.sha256(json.dumps(sorted(words)).encode()).hexdigest()[:8]}"


def _checked(name: str | None, node: dict[str, Any], size: str) -> dict[str, Any]:
    """The node in that size, complete. Raises ConfigError if it is no table."""
    sizes = node.get("sizes") or {}
    if size != FULL:
        if size not in sizes:
            raise ConfigError(f"size={size}: table={name} has no such size; want one of {', '.join([FULL, *sizes])}")
        node = {**node, **sizes[size]}
    for key, value in node.items():
        if key not in KEYS:
            raise ConfigError(f"table={name}: {key} is no key of a table; those are {', '.join(KEYS)}")
        if value is not None and not isinstance(value, KEYS[key]):
            raise ConfigError(f"table={name}: {key}={value!r} has a wrong type")
    return {**dict.fromkeys(KEYS), **DEFAULTS, **{key: value for key, value in node.items() if value is not None}}


def _parts(axes: Any, name: str | None) -> list[tuple[str, Any]]:
    """(label, overrides) of every combination of the axes."""
    axes = axes if isinstance(axes, list) else [axes]
    if len(axes) == 1:
        return [(str(label), overrides) for label, overrides in axes[0].items()]
    parts = []
    for chosen in itertools.product(*(axis.items() for axis in axes)):
        if any(isinstance(overrides, dict) for _, overrides in chosen):
            raise ConfigError(f"table={name}: columns that depend on the row cannot be combined with others")
        words = [word for _, overrides in chosen for word in _words(overrides)]
        parts.append((", ".join(str(label) for label, _ in chosen), words))
    return parts


def _share(column: tuple[str, Any], row: tuple[str, Any]) -> Any:
    """The overrides of a column in a row; None if there is no such cell."""
    if not isinstance(column[1], dict):
        return column[1] or []
    return column[1].get(row[0])


def _words(overrides: Any) -> list[Any]:
    """The texts in a text, a list, or lists in a list."""
    return [word for part in overrides or [] for word in _words(part)] if isinstance(overrides, list) else [overrides]


def _overrides(overrides: Any, name: str | None) -> dict[str, str]:
    pairs = []
    for word in _words(overrides):
        if not isinstance(word, str) or ("=" not in word and not word.startswith(WITHDRAWN)):
            raise ConfigError(f"table={name}: {word!r} is no override; want text like sparsity=0.9")
        pairs.append(tuple(word.split("=", 1)) if "=" in word else (word, ""))
    return joined(*({key: value} for key, value in pairs))


def _complete(cell: Cell, common: Mapping[str, str], *, of_table: bool) -> Cell:
    """The cell with all its overrides, but those withdrawn, and options of auxiliary tasks that it has not.

    A task that an experiment may bring along is there unless the cell has none; so is any in a plain grid.
    """
    every = joined(common, cell.row.overrides, cell.column.overrides)
    given = {key: value for key, value in every.items() if value or not key.startswith(WITHDRAWN)}
    tasks = {
        key.rpartition("@")[2]: value for key, value in given.items() if re.fullmatch(r"auxiliary(@\w+)?", plain(key))
    }
    unknown = "none" if of_table and "experiment" not in given else "some"
    kept = {
        key: value
        for key, value in given.items()
        if not re.match(r"auxiliary(_\w+)?\.", plain(key)) or tasks.get(plain(key).partition(".")[0], unknown) != "none"
    }
    return replace(cell, overrides=kept)
