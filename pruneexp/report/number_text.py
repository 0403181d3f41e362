"""How numbers are written in a table: one unit and as many decimals for all of a metric."""

from collections.abc import Iterable
from dataclasses import dataclass

from pruneexp.report.metrics import Metric
from pruneexp.report.references import Reference
from pruneexp.report.tables import Statistic, Table

STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
DECIMALS = {"%": 2, "points": 2, "ms": 2, "s": 1, "x": 2}


@dataclass(frozen=True)
class NumberFormat:
    """A unit, what values are multiplied by to be in it, and how many decimals they get."""

    unit: str
    scale: float
    decimals: int

    def text(self, value: float) -> str:
        """A value in the unit, without it."""
        return f"{value * self.scale:.{self.decimals}f}"

    def spread(self, statistic: Statistic) -> str:
        """The mean with the deviation, where there is one."""
        mean = self.text(statistic.mean)
        return mean if statistic.std is None else f"{mean} ± {self.text(statistic.std)}"

    def difference(self, value: float) -> str:
        """A difference with its sign."""
        return f"{value * self.scale:+.{self.decimals}f}"

    def reference(self, reference: Reference) -> str:
        """A paper's number as it prints it; counts in our unit."""
        if reference.unit == self.unit or self.scale == 1.0:
            return reference.text
        return f"{reference.bound} {self.text(reference.value)}".strip()


def number_format(metric: Metric, values: Iterable[float]) -> NumberFormat:
    """The format for a metric with these values."""
    largest = max(map(abs, values), default=0.0)
    if metric.is_count:
        size, prefix = next(((size, prefix) for size, prefix in STEPS if largest >= size), (1.0, ""))
        digits = len(f"{largest / size:.0f}")
        return NumberFormat(prefix + metric.unit, 1 / size, 0 if size == 1 else max(4 - digits, 0))
    if metric.unit:
        return NumberFormat(metric.unit, metric.scale, DECIMALS[metric.unit])
    whole = all(float(value).is_integer() for value in values)
    return NumberFormat("", 1.0, 0 if whole and largest > 1 else 3)


def table_format(table: Table, metric: Metric) -> NumberFormat:
    """The format for a metric in a table."""
    statistics = [table.statistic(place, metric) for place in table.places]
    papers = [table.reference(place, metric) for place in table.places]
    ours = [value for statistic in statistics if statistic for value in statistic.values]
    return number_format(metric, [*ours, *(paper.value for paper in papers if paper)])
