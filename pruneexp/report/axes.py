"""Which options of the runs become rows and which columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruneexp.report.finished import FinishedRun
from pruneexp.report.options import differing, sort_key, text_of, value_of

Key = tuple[Any, ...]

NATURAL = ("method", "sparsity", "model", "dataset", "auxiliary", "pattern", "distillation", "budget", "schedule")
"""Options that users think in, in the order in which they become axes; all others only where nothing of these tells
runs apart."""

ACROSS = ("sparsity", "pattern", "dataset", "model")
"""Axes that make columns, the first of them that there is."""


@dataclass(frozen=True)
class Axes:
    """The options along rows and along columns, by name."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.rows, *self.columns))

    def row(self, run: FinishedRun) -> Key:
        """The values that say in which row a run stands."""
        return key_of(run, self.rows)

    def column(self, run: FinishedRun) -> Key:
        """The values that say in which column a run stands."""
        return key_of(run, self.columns)


def key_of(run: FinishedRun, names: Sequence[str]) -> Key:
    """The values of a run on some axes."""
    return tuple(value_of(run.config, name) for name in names)


def chosen_axes(runs: Sequence[FinishedRun], rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Axes:
    """The axes of a table: as given, or else what differs between the runs, so that each cell holds runs of one kind.

    Raises:
        ValueError: an axis is given that no run has, or twice.
    """
    for name in (*rows, *columns):
        if all(value_of(run.config, name) is None for run in runs):
            known = ", ".join(_varying(runs)) or "nothing"
            raise ValueError(f"axis {name}: no run has such an option; what differs between the runs is {known}")
    twice = set(rows) & set(columns)
    if twice:
        raise ValueError(f"axis {min(twice)}: is both rows and columns; leave it out of one")
    if rows and columns:
        return Axes(tuple(rows), tuple(columns))
    names = [name for name in telling_apart(runs, (*rows, *columns)) if name not in (*rows, *columns)]
    if rows:
        return Axes(tuple(rows), tuple(names))
    if columns:
        return Axes(tuple(names), tuple(columns))
    if len(names) < 2:
        return Axes(tuple(names) or ("method",), ())
    across = [name for name in ACROSS if name in names][:1]
    return Axes(tuple(name for name in names if name not in across), tuple(across))


def with_methods(axes: Axes) -> Axes:
    """The axes with methods as rows, so that rows of other methods can be added."""
    if "method" in axes:
        return axes
    across = axes.columns or tuple(name for name in ACROSS if name in axes.rows)[:1]
    return Axes(("method", *(name for name in axes.rows if name not in across)), across)


def telling_apart(runs: Sequence[FinishedRun], given: Sequence[str] = ()) -> list[str]:
    """The fewest axes, with those given, that leave no two runs in one cell which differ in more than their seed."""
    chosen = list(given)
    for name in _natural(runs):
        if name not in chosen and (_refines(runs, chosen, name) or _hidden(runs, chosen, name)):
            chosen.append(name)
    while mixed := [cell for cell in cells_of(runs, chosen).values() if len(kinds(cell)) > 1]:
        candidates = list(dict.fromkeys(name for cell in mixed for name in differing(run.decisions for run in cell)))
        splitting = {name: sum(len(cells_of(cell, [name])) > 1 for cell in mixed) for name in candidates}
        best = max(candidates, key=lambda name: splitting[name])
        if not splitting[best]:
            break  # they differ in what no axis shows; the table will say so
        chosen.append(best)
    for name in reversed(chosen[len(given) :]):  # a later axis may have made an earlier one needless, as tau does beta
        without = [other for other in chosen if other != name]
        if name not in NATURAL and all(len(kinds(cell)) == 1 for cell in cells_of(runs, without).values()):
            chosen = without
    return chosen


def cells_of(runs: Sequence[FinishedRun], names: Sequence[str]) -> dict[Key, list[FinishedRun]]:
    """The runs by their values on some axes."""
    cells: dict[Key, list[FinishedRun]] = {}
    for run in runs:
        cells.setdefault(key_of(run, names), []).append(run)
    return cells


def kinds(runs: Sequence[FinishedRun]) -> list[Mapping[str, Any]]:
    """The different sets of options among runs: one where they are repetitions of each other."""
    return list({repr(sorted(run.decisions.items(), key=str)): run.decisions for run in runs}.values())


def key_text(names: Sequence[str], key: Key) -> str:
    """Values as a label: "pdp, 90 %"; options that are no choice with their names: "method.tau=0.1"."""
    pairs = [(name, text_of(name, value)) for name, value in zip(names, key, strict=True) if value is not None]
    return ", ".join(text if name in NATURAL else f"{name}={text}" for name, text in pairs)


def sorted_keys(keys: Sequence[Key]) -> list[Key]:
    """The keys of rows or columns in order."""
    return sorted(dict.fromkeys(keys), key=lambda key: [sort_key(value) for value in key])


def _natural(runs: Sequence[FinishedRun]) -> list[str]:
    """The natural axes; where every run keeps N of every M weights these groups come before the sparsity they give."""
    patterns = {value_of(run.config, "pattern") for run in runs}
    if all(pattern and ":" in pattern for pattern in patterns):
        return ["method", "pattern", *(name for name in NATURAL if name not in ("method", "pattern"))]
    return list(NATURAL)


def _hidden(runs: Sequence[FinishedRun], chosen: Sequence[str], name: str) -> bool:
    """Whether one row would hold runs of several models, data sets, patterns ..., told apart by their sparsities only.

    Each cell would be right, and the row would compare what cannot be compared.
    """
    if name not in ("model", "dataset", "auxiliary", "pattern", "distillation"):
        return False
    rows = cells_of(runs, [other for other in chosen if other != "sparsity"]).values()
    return any(len({_kind(run, name) for run in row}) > 1 for row in rows)


def _kind(run: FinishedRun, name: str) -> Any:
    """The value on an axis, all N:M groups as one kind."""
    value = value_of(run.config, name)
    return "N:M" if name == "pattern" and value and ":" in value else value


def _refines(runs: Sequence[FinishedRun], chosen: Sequence[str], name: str) -> bool:
    """Whether an axis splits a cell whose runs differ in more than their seed."""
    mixed = [cell for cell in cells_of(runs, chosen).values() if len(kinds(cell)) > 1]
    return any(len(cells_of(cell, [name])) > 1 for cell in mixed)


def _varying(runs: Sequence[FinishedRun]) -> list[str]:
    """The axes on which the runs differ, the natural ones first."""
    names = dict.fromkeys([*NATURAL, *differing(run.decisions for run in runs)])
    return [name for name in names if len(cells_of(runs, [name])) > 1]
