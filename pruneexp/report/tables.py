"""A table of runs: mean, standard deviation and n over seeds, beside the papers' numbers."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pruneexp.report.axes import NATURAL, Key, sorted_keys
from pruneexp.report.finished import FinishedRun
from pruneexp.report.layout import Layout, Place, one_value
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
    """A table with the references that fit its cells. papers: with rows for methods that only papers have.

    Of several that fit a cell, those of the table or figure that the layout names as its source come first.
    """
    names = {name for reference in references for name in reference.where} | set(PART_OF_THE_DATA)
    if papers:
        layout = with_papers_rows(layout, references, names)
    found = {}
    for row in layout.rows:
        for column in layout.columns:
            place = row, column
            if not (layout.expects(place) or row in layout.papers):
                continue
            context = context_of(layout, place, names)
            for metric in metrics:
                fitting = matching(references, context, metric.quantity)
                if fitting:
                    found[place, metric.name] = sorted(fitting, key=lambda one: not one.is_from(layout.source))
    return Table(layout, metrics, found)


def context_of(layout: Layout, place: Place, names: Iterable[str]) -> dict[str, Any]:
    """The options of a cell that references ask for. A sparsity that the method found is the runs' mean."""
    context = {name: layout.common(place, name) for name in names}
    runs = layout.runs.get(place, ())
    if context.get("sparsity") == "found" and runs:
        context["sparsity"] = statistics.fmean(run.summary["sparsity"]["prunable"] for run in runs)
    if place[0] in layout.papers:
        pruned = [run for (_, c), some in layout.runs.items() if c == place[1] for run in some if not run.is_dense]
        context |= {name: one_value(pruned, name) for name in names if layout.has_labels or context[name] is None}
        context["method"] = layout.papers[place[0]]
    return context


def with_papers_rows(layout: Layout, references: Sequence[Reference], names: Iterable[str]) -> Layout:
    """The layout with a row for each method that only papers have a number for, in a column of ours.

    In a table without methods as rows there is nothing to add.
    """
    side = next((name for name in ("method", "row") if name in layout.axes.rows), None)
    if side is None:
        return layout
    ours = {layout.common(place, "method") for place in layout.runs}
    candidates: dict[Key, str] = {}
    named = (reference.where.get("method") for reference in references)
    for method in dict.fromkeys(name for name in named if isinstance(name, str)):
        if method not in (*ours, "dense"):
            candidates |= {_row_of(layout, row, side, method): method for row in layout.rows}
    wider = replace(layout, papers=candidates)
    contexts = {row: [context_of(wider, (row, column), names) for column in layout.columns] for row in candidates}
    added = [row for row in candidates if any(one.matches(c) for one in references for c in contexts[row])]
    rows = [*layout.rows, *sorted_keys(added)]
    return replace(layout, rows=rows, papers={row: candidates[row] for row in added})


def _row_of(layout: Layout, row: Key, side: str, method: str) -> Key:
    """A row like ours, of another method; it has none of our methods' options."""
    kept = {name: value for name, value in zip(layout.axes.rows, row, strict=True) if name in NATURAL}
    return tuple(method if name == side else kept.get(name) for name in layout.axes.rows)
