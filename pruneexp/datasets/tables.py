"""Tables from files: parquet, JSON lines, CSV or TSV, one file (or numbered shards) per split."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = dict[str, list[Any]]
"""Column name -> values, one per row."""

SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")
_OTHER_NAMES = {"validation": ("dev", "val", "valid")}


def find(folder: Path, split: str) -> list[Path]:
    """The files of a split: `split`.parquet (.jsonl, ...), or its shards `split`-00000-of-00002.parquet; else none."""
    for name in (split, *_OTHER_NAMES.get(split, ())):
        for suffix in SUFFIXES:
            whole, shards = folder / f"{name}{suffix}", sorted(folder.glob(f"{name}-*-of-*{suffix}"))
            if whole.is_file() or shards:
                return [whole] if whole.is_file() else shards
    return []


def read(paths: list[Path]) -> Table:
    """The rows of all `paths`, in order.

    Raises:
        ValueError: a file is damaged, has no rows, or lacks columns that another one has.
    """
    tables = [_read_one(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table or not next(iter(table.values())):
            raise ValueError(f"dataset.path: {path} has no rows; give a file with examples")
        if table.keys() != tables[0].keys():
            raise ValueError(
                f"dataset.path: {path} has the columns {', '.join(table)}, {paths[0]} {', '.join(tables[0])}"
            )
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


def _read_one(path: Path) -> Table:
    readers: dict[str, Callable[[Path], Table]] = {
        ".parquet": _read_parquet,
        ".jsonl": _read_jsonl,
        ".csv": lambda file: _read_delimited(file, delimiter=","),
        ".tsv": lambda file: _read_delimited(file, delimiter="\t", quoting=csv.QUOTE_NONE),
    }
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's and json's errors are ValueErrors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"dataset.path: {path} cannot be read: {reason}") from error


def _read_parquet(path: Path) -> Table:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read().to_pydict()


def _read_jsonl(path: Path) -> Table:
    with path.open(encoding="utf-8") as file:  # str.splitlines would also split at U+2028 within a text
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be a JSON object")
    return _columns(rows, list(rows[0]) if rows else [])


def _read_delimited(path: Path, **form: Any) -> Table:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, **form)
        return _columns(list(reader), list(reader.fieldnames or []))


def _columns(rows: list[dict[str, Any]], names: list[str]) -> Table:
    return {name: [row.get(name) for row in rows] for name in names}


def column(table: Table, name: str, *, key: str, source: str) -> list[Any]:
    """The values of a column, none of them missing. key: the config key that names it. source: for messages.

    Raises:
        ValueError: there is no such column, or a row has no value in it.
    """
    if name not in table:
        raise ValueError(f"dataset.{key}={name}: no such column in {source}, which has {', '.join(table)}")
    if None in table[name]:
        row = table[name].index(None)
        raise ValueError(f"dataset.{key}={name}: row {row + 1} of {source} has no value; fill it in or delete the row")
    return table[name]
