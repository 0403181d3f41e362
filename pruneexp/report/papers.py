"""The papers' numbers as points of a chart."""

from collections.abc import Sequence
from dataclasses import dataclass

from pruneexp.report.finished import FinishedRun
from pruneexp.report.options import value_of
from pruneexp.report.references import COST
from pruneexp.report.series import Series
from pruneexp.report.tables import Table


@dataclass(frozen=True)
class PaperPoint:
    """A paper's score. series: the label of our series that it belongs to, "" without one. along: what a chart has on
    its other axis, "sparsity.prunable" or "macs.effective", and the paper's value of that."""

    label: str
    series: str
    along: str
    at: float
    value: float


def paper_points(tables: Sequence[Table], runs: Sequence[FinishedRun], series: Sequence[Series]) -> list[PaperPoint]:
    """The headline numbers of papers that stand in tables beside these runs, which are of one model and data set.

    A number that the paper gives only a bound for has no place on paper.
    """
    labels = {id(run): one.label for one in series for point in one.points for run in point.runs}
    common = {name: value_of(runs[0].config, name) for name in ("model", "dataset")}
    points: dict[PaperPoint, None] = {}
    for table in tables:
        for (place, metric), references in table.references.items():
            reference, own = references[0], table.runs(place)
            sparsity = reference.where.get("sparsity")
            fits = all(table.layout.common(place, name) == value for name, value in common.items())
            if not fits or metric != "headline" or reference.bound or not isinstance(sparsity, int | float):
                continue
            mine = labels.get(id(own[0]), "") if own else ""
            method = mine or str(reference.where.get("method", "other"))
            places = {"sparsity.prunable": sparsity, COST: reference.macs}
            for along, at in places.items():
                if at is not None:
                    points[PaperPoint(f"{method}, paper", mine, along, float(at), reference.value)] = None
    return list(points)
