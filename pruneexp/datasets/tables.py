"""Tables from files: parquet, JSON lines, CSV or TSV, one file (or numbered shards) per split."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = dict[str, list[Any]]
"""Column name -> values, one per row."""

SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")
_LONGEST_FIELD = 2**31 - 1  # characters; csv's own limit of 131,072 is a book chapter
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
        raise ValueError(f"dataset.path: {path} cannot be read: {reason}; repair it, or get it again") from error


def _read_parquet(path: Path) -> Table:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path).read()
    _check_names(table.column_names)
    return table.to_pydict()


def _read_jsonl(path: Path) -> Table:
    rows = []
    with path.open(encoding="utf-8-sig") as file:  # str.splitlines would also split at U+2028 within a text
        for number, line in enumerate(file, 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON ({error.msg})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be a JSON object")
    return _columns(rows, list(rows[0]) if rows else [])


def _read_delimited(path: Path, **form: Any) -> Table:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file, **form)
        names, rows = list(reader.fieldnames or []), list(reader)
    for number, row in enumerate(rows, 1):
        if None in row:  # where csv puts what is beyond the last column
            raise ValueError(f"row {number} has more than the {len(names)} fields of the first line; quote its text")
    return _columns(rows, names)


def _columns(rows: list[dict[str, Any]], names: list[str]) -> Table:
    _check_names(names)
    return {name: [row.get(name) for row in rows] for name in names}


def _check_names(names: list[str]) -> None:
    """Raises ValueError where two columns have one name, of which only the last would be read."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"it has two columns of the name {twice[0]}; rename one")


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


def texts(table: Table, name: str, *, key: str, source: str) -> list[str]:
    """The values of a column as texts; numbers are written out.

    Raises:
        ValueError: as `column`, or a value is a list or the like, or no row has a word in it.
    """
    values = column(table, name, key=key, source=source)
    for row, value in enumerate(values, 1):
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise ValueError(f"dataset.{key}={name}: row {row} of {source} is a {kind}, no text; join it to one string")
    found = [str(value) for value in values]
    if not any(text.strip() for text in found):
        raise ValueError(f"dataset.{key}={name}: every text of {source} is empty; name the column that has them")
    return found
