"""What the command line gives on top of a table: `pruneexp.sweeps.tables` says how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml

from pruneexp.sweeps.cells import Cell, Part, joined, plain

Given = Mapping[str, Sequence[str]]
"""The options on the command line: key -> its values, one or several."""


def narrowed(cells: list[Cell], key: str, values: Sequence[str]) -> list[Cell]:
    """The cells under `key=value` for one or several values, as this module's docstring has it."""
    settings = [_setting(cell, key) for cell in cells]
    wanted = {_canonical(value) for value in values}
    known = {_canonical(setting) for setting in settings if setting is not None}
    new = [value for value in values if _canonical(value) not in known]
    several = len(values) > 1
    result = []
    for cell, setting in zip(cells, settings, strict=True):
        if setting is None and known:  # this cell alone has no such choice
            result.append(cell if several else _changed(cell, key, values[0], shown=False))
            continue
        if setting is not None and _canonical(setting) in wanted:
            result.append(cell)
        result += [_changed(cell, key, value, shown=several or setting is not None) for value in new]
    return result


def _setting(cell: Cell, key: str) -> str | None:
    """What the row or the column of a cell set an option to, None if neither does."""
    for part in (cell.column, cell.row):
        for own, value in part.overrides.items():
            if plain(own) == plain(key):
                return value
    return None


def _canonical(value: str) -> str:
    """A value so that 0.9 and 0.90 are the same."""
    try:
        return repr(yaml.safe_load(value))
    except yaml.YAMLError:
        return value


def _changed(cell: Cell, key: str, value: str, *, shown: bool) -> Cell:
    """The cell with another value of an option. shown: in the label of the row, or of the column that sets it."""
    in_column = any(plain(own) == plain(key) for own in cell.column.overrides)
    part = cell.column if in_column else cell.row
    others = {own: old for own, old in part.overrides.items() if plain(own) != plain(key)}
    label = part.label
    if shown:
        kept = [part.label] if part.label and (others or not part.overrides) else []
        label = ", ".join([*kept, f"{key}={value}"])
    changed = Part(label, joined(others, {key: value}))
    return replace(cell, column=changed) if in_column else replace(cell, row=changed)
