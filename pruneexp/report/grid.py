"""A table as text in rows and columns, before it becomes Markdown, LaTeX or a table in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from pruneexp.report.axes import Key
from pruneexp.report.metrics import Metric
from pruneexp.report.notes import footnotes, notes, usual_n
from pruneexp.report.number_text import NumberFormat, table_format
from pruneexp.report.options import DASH
from pruneexp.report.tables import Table


@dataclass(frozen=True)
class Number:
    """The text of a cell. mark: the letter of its footnote, "" without one."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A column of numbers. levels: its headings from the top down; equal ones beside each other are one heading."""

    levels: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """labels: headings of the label columns at the left. rows: the labels of each row, and its numbers."""

    title: str
    labels: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[tuple[Sequence[str], Sequence[Number]]]
    notes: Sequence[str]

    @property
    def headings(self) -> list[str]:
        """The headings of the columns of numbers on one line."""
        return [", ".join(level for level in column.levels if level) for column in self.columns]


def make_grid(table: Table) -> Grid:
    """The grid of a table: for each of its columns and metrics our number, and the paper's with the difference if any
    cell of that metric has one."""
    layout = table.layout
    formats = {metric.name: table_format(table, metric) for metric in table.metrics}
    parts = [
        (column, metric, part)
        for column in layout.columns
        for metric in table.metrics
        for part in (PARTS if table.has_references(metric) else PARTS[:1])
    ]
    several, papers = len(table.metrics) > 1, bool(table.references)
    columns = [
        Column(
            (
                *((layout.column_text(column),) if layout.axes.columns else ()),
                *((heading(metric, formats[metric.name]),) if several or not layout.axes.columns else ()),
                *((part,) if papers else ()),
            )
        )
        for column, metric, part in parts
    ]
    letters, n = footnotes(table), usual_n(table)
    cells = _Cells(table, formats, letters, n)
    rows = [
        (layout.row_text(row), [cells.number(row, column, metric, part) for column, metric, part in parts])
        for row in layout.rows
    ]
    labels = ["" if name == "row" else name for name in layout.axes.rows]
    return Grid(title(table), labels, _levelled(columns), rows, notes(table))


PARTS = ("ours", "paper", "difference")


def heading(metric: Metric, number_format: NumberFormat) -> str:
    """A metric's label with its unit: "test accuracy (%)"."""
    return f"{metric.label} ({number_format.unit})" if number_format.unit else metric.label


def title(table: Table) -> str:
    """The table's own title, or what is in it and for what."""
    layout = table.layout
    metrics = ", ".join(heading(metric, table_format(table, metric)) for metric in table.metrics)
    if layout.title:
        return f"{layout.title}: {metrics}" if len(table.metrics) == 1 else layout.title
    runs = layout.all_runs
    same = [
        next(iter(values))
        for key in ("model", "dataset")
        if len(values := {str(run.config["choices"].get(key)) for run in runs}) == 1
    ]
    across = f", columns: {', '.join(layout.axes.columns)}" if layout.axes.columns else ""
    return (f"{' on '.join(same)}: {metrics}" if same else metrics) + across


@dataclass(frozen=True)
class _Cells:
    """What the texts of a table's cells are made from."""

    table: Table
    formats: dict[str, NumberFormat]
    letters: dict[tuple[str, str], str]
    n: int

    def number(self, row: Key, column: Key, metric: Metric, part: str) -> Number:
        """The text of a part of a cell; a dash where there is nothing."""
        place, number_format = (row, column), self.formats[metric.name]
        if part == "ours":
            statistic = self.table.statistic(place, metric)
            if statistic is None:
                return Number(DASH)
            other_n = f" (n={statistic.n})" if statistic.n != self.n else ""
            return Number(number_format.spread(statistic) + other_n)
        reference = self.table.reference(place, metric)
        if part == "paper":
            if reference is None:
                return Number(DASH)
            return Number(number_format.reference(reference), self.letters[reference.source, reference.certainty])
        difference = self.table.difference(place, metric)
        return Number(DASH if difference is None else number_format.difference(difference))


def _levelled(columns: Sequence[Column]) -> list[Column]:
    """The columns without levels that say nothing."""
    kept = [level for level in range(len(columns[0].levels) if columns else 0) if any(c.levels[level] for c in columns)]
    return [Column(tuple(column.levels[level] for level in kept)) for column in columns]
