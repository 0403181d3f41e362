"""Which run stands in which cell of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pruneexp.report.axes import Axes, Key, kinds, sorted_keys
from pruneexp.report.finished import FinishedRun
from pruneexp.report.options import DASH, differing, text_of, value_of

Place = tuple[Key, Key]  # row, column


@dataclass(frozen=True)
class Layout:
    """The runs of each cell. Rows and columns are known by the values of some options, or by the labels of a table.

    axes: the options; "row" and "column" where they are labels. seeds: how many runs each cell is to have, None where
    that is not known. pending: of runs that were planned and are not finished, what is known of them. papers: rows of
    methods that only papers have, with the method.
    """

    axes: Axes
    rows: Sequence[Key]
    columns: Sequence[Key]
    runs: Mapping[Place, Sequence[FinishedRun]]
    title: str = ""
    source: str = ""
    reference: str | None = None
    metric: str | None = None
    seeds: int | None = None
    pending: Mapping[Place, Sequence[str]] = field(default_factory=dict)
    papers: Mapping[Key, str] = field(default_factory=dict)

    @property
    def all_runs(self) -> list[FinishedRun]:
        """Every run that stands in a cell, once."""
        return list({id(run): run for runs in self.runs.values() for run in runs}.values())

    def common(self, place: Place, name: str) -> Any:
        """The value of an option in a cell, None where it is not one value.

        A cell without a finished run has the values that its axes say, and otherwise those that all runs of the table
        share; behind labels nothing is known of it.
        """
        for names, key in zip((self.axes.rows, self.axes.columns), place, strict=True):
            if name in names:
                return key[names.index(name)]
        runs = self.runs.get(place, ())
        return one_value(runs or ([] if self.has_labels else self.all_runs), name)

    def expects(self, place: Place) -> bool:
        """Whether a cell could have a run of ours: planned in a table's sweep, of a method that we have, and not at a
        target where the method finds its sparsity itself, or the other way round."""
        if place[0] in self.papers:
            return False
        if self.has_labels:
            return place in self.runs or place in self.pending
        runs = [run for (row, _), some in self.runs.items() if row == place[0] for run in some]
        there = {value_of(run.config, "sparsity") == "found" for run in runs}
        here = self.common(place, "sparsity")
        return here is None or not runs or (here == "found") in there

    @property
    def has_labels(self) -> bool:
        """Whether rows and columns are a table's labels and not the values of options."""
        return self.axes.rows == ("row",)

    def row_text(self, row: Key) -> list[str]:
        """The labels of a row, one for each of its options."""
        return _texts(self.axes.rows, row)

    def column_text(self, column: Key) -> str:
        """The label of a column."""
        return ", ".join(text for text in _texts(self.axes.columns, column) if text != DASH)

    def text(self, place: Place) -> str:
        """The label of a cell."""
        return ", ".join(
            text for text in (*self.row_text(place[0]), self.column_text(place[1])) if text not in ("", DASH)
        )


def by_axes(runs: Sequence[FinishedRun], axes: Axes) -> Layout:
    """The runs at the values of their options.

    Raises:
        ValueError: runs would meet in a cell that differ in more than their seed.
    """
    cells: dict[Place, list[FinishedRun]] = {}
    for run in runs:
        cells.setdefault((axes.row(run), axes.column(run)), []).append(run)
    rows, columns = ([place[side] for place in cells] for side in (0, 1))
    layout = Layout(axes, sorted_keys(rows), sorted_keys(columns), cells, seeds=len({run.seed for run in runs}))
    check(layout)
    return layout


def check(layout: Layout) -> None:
    """Raises ValueError, with the remedy, if a cell holds runs that differ in more than their seed."""
    for place, runs in layout.runs.items():
        if len(kinds(runs)) < 2:
            _check_seeds(layout, place)
            continue
        names = differing(run.decisions for run in runs)
        shown = [f"{name}={' and '.join(_values(runs, name))}" for name in names[:SHOWN]]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        first, value = names[0], _values(runs, names[0])[-1]
        axis = "rows" if layout.axes.rows else "columns"
        raise ValueError(
            f"{layout.text(place) or 'the table'}: would average runs that differ in more than their seed: "
            f"{', '.join(shown)}{more}; keep one kind with --filter {first}={value}, or tell them apart with "
            f"--{axis} {','.join((*getattr(layout.axes, axis), first))}"
        )


def _check_seeds(layout: Layout, place: Place) -> None:
    """Raises ValueError if a seed stands in a cell twice, as can be where differences are ignored."""
    by_seed = {run.seed: run for run in layout.runs[place]}
    for run in layout.runs[place]:
        if by_seed[run.seed] is not run:
            raise ValueError(
                f"{layout.text(place) or 'the table'}: has seed {run.seed} twice, {run.folder} and "
                f"{by_seed[run.seed].folder}; give the folders of one of them only"
            )


def by_headline(layout: Layout) -> list[Layout]:
    """The layout in as many parts as its runs have headlines, each with the rows and columns of its own runs.

    A row or column without a run is in all of them, since its headline is not known.
    """
    names = dict.fromkeys(run.summary["headline"]["name"] for run in layout.all_runs)
    if len(names) < 2:
        return [layout]
    parts = []
    known = [{place[side] for place, runs in layout.runs.items() if runs} for side in (0, 1)]
    for name in names:
        runs = {
            place: [run for run in runs if run.summary["headline"]["name"] == name]
            for place, runs in layout.runs.items()
        }
        own = [{place[side] for place, some in runs.items() if some} for side in (0, 1)]
        rows, columns = (
            [key for key in keys if key in own[side] or key not in known[side]]
            for side, keys in enumerate((layout.rows, layout.columns))
        )
        parts.append(replace(layout, rows=rows, columns=columns, runs=runs))
    return parts


SHOWN = 4
"""Differences that a message names."""


def _values(runs: Sequence[FinishedRun], name: str) -> list[str]:
    """The different values of a deciding option, as the configs have them."""
    return sorted({text_of("", value_of(run.config, name)) for run in runs})


def one_value(runs: Sequence[FinishedRun], name: str) -> Any:
    """The value that all runs have, None where they have several."""
    first = value_of(runs[0].config, name) if runs else None
    return first if all(value_of(run.config, name) == first for run in runs) else None


def _texts(names: Sequence[str], key: Key) -> list[str]:
    return [text_of(name, value) for name, value in zip(names, key, strict=True)]
