"""A table of runs: mean, standard deviation and n over seeds, beside the papers' numbers."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruneexp.report.axes import NATURAL, Key, sorted_keys
from pruneexp.report.finished import FinishedRun
from pruneexp.report.layout import Layout, Place
from pruneexp.report.metrics import Metric
from pruneexp.report.references import PART_OF_THE_DATA, Reference, matching


@dataclass(frozen=True)
class Statistic:
    """What runs have in common in one number. values: of each, in the order of the runs that have one."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Their sample standard deviation, over n - 1; None for a single run."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Table:
    """A layout with the metrics to show and the papers' numbers. references: those of each cell and metric, the one to
    show first."""

    layout: Layout
    metrics: Sequence[Metric]
    references: dict[tuple[Place, str], list[Reference]]

    def runs(self, place: Place) -> list[FinishedRun]:
        """The runs of a cell, by seed."""
        return sorted(self.layout.runs.get(place, ()), key=lambda run: run.seed)

    def statistic(self, place: Place, metric: Metric) -> Statistic | None:
        """A metric over the runs of a cell; None where none has it."""
        values = [metric.value(run) for run in self.runs(place)]
        known = tuple(value for value in values if value is not None)
        return Statistic(known) if known else None

    def reference(self, place: Place, metric: Metric) -> Reference | None:
        """The paper's number that stands beside a cell."""
        return next(iter(self.references.get((place, metric.name), ())), None)

    def difference(self, place: Place, metric: Metric) -> float | None:
        """Our mean minus the paper's number; None without either, or where the paper gives only a bound."""
        ours, paper = self.statistic(place, metric), self.reference(place, metric)
        return ours.mean - paper.value if ours and paper and not paper.bound else None

    def has_references(self, metric: Metric) -> bool:
        """Whether any cell has a paper's number of this metric."""
        return any(name == metric.name for _, name in self.references)

    @property
    def places(self) -> list[Place]:
        """All cells, row by row."""
        return [(row, column) for row in self.layout.rows for column in self.layout.columns]


def make_table(
    layout: Layout, metrics: Sequence[Metric], references: Sequence[Reference], *, papers: bool = False
) -> Table:
    """A table with the references that fit its cells. papers: with rows for methods that only papers have."""
    if papers:
        layout = with_papers_rows(layout, references)
    found = {}
    for row in layout.rows:
        for column in layout.columns:
            place = row, column
            context = context_of(layout, place, references)
            for metric in metrics:
                fitting = matching(references, context, metric.quantity)
                if fitting:
                    found[place, metric.name] = fitting
    return Table(layout, metrics, found)


def context_of(layout: Layout, place: Place, references: Sequence[Reference]) -> dict[str, object]:
    """The options of a cell that references ask for. A sparsity that the method found is the runs' mean."""
    names = {name for reference in references for name in reference.where} | set(PART_OF_THE_DATA)
    context = {name: layout.common(place, name) for name in names}
    runs = layout.runs.get(place, ())
    if layout.axes.rows == ("row",) and not any(row == place[0] for row, _ in layout.runs):
        context["method"] = place[0][0]  # a row that only papers have is labelled by its method
    if context.get("sparsity") == "found" and runs:
        context["sparsity"] = statistics.fmean(run.summary["sparsity"]["prunable"] for run in runs)
    return context


def with_papers_rows(layout: Layout, references: Sequence[Reference]) -> Layout:
    """The layout with a row for each method that only papers have a number for, in a column of ours.

    In a table without methods as rows there is nothing to add.
    """
    side = next((name for name in ("method", "row") if name in layout.axes.rows), None)
    if side is None:
        return layout
    ours = {layout.common(place, "method") for place in layout.runs}
    added: dict[Key, None] = {}
    for reference in references:
        method = reference.where.get("method")
        if not isinstance(method, str) or method in ours:
            continue
        for row in layout.rows:
            contexts = [context_of(layout, (row, column), [reference]) for column in layout.columns]
            if any(reference.matches({**context, "method": method}) for context in contexts):
                added[_row_of(layout, row, side, method)] = None
    return replace(layout, rows=[*layout.rows, *sorted_keys(list(added))])


def _row_of(layout: Layout, row: Key, side: str, method: str) -> Key:
    """A row like ours, of another method; it has none of our methods' options."""
    kept = {name: value for name, value in zip(layout.axes.rows, row, strict=True) if name in NATURAL}
    return tuple(method if name == side else kept.get(name) for name in layout.axes.rows)
