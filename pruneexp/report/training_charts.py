"""How sparsity and validation score went during training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruneexp.report.chart_style import Chart, label, legend, new_figure, style, tidy
from pruneexp.report.finished import FinishedRun
from pruneexp.report.numbers import finite
from pruneexp.report.scores import is_percentage
from pruneexp.report.series import Point, shares
from pruneexp.report.tables import Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOGETHER = 6  # lines of all sparsities in one chart; with more, each sparsity has its own
SCORES = ("validation_hard", "validation")
"""Of soft masks the score with hard ones, where there is one: it is what a run ends with."""


def schedule_charts(runs: Sequence[FinishedRun], title: str) -> list[Chart]:
    """Sparsity over training above, the validation score below, of the runs that have logged any."""
    logged = [run for run in runs if run.rows]
    return [
        _chart(share.points, title + share.title, f"schedule{share.name}", runs[0].summary["headline"]["name"])
        for share in shares(logged, together=TOGETHER)
    ]


def _chart(points: Sequence[Point], title: str, name: str, metric: str) -> Chart:
    figure = new_figure(6.4, 5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    for index, point in enumerate(points):
        _draw(above, point, index, ["sparsity/prunable"], scale=100)
        _draw(below, point, index, [f"{split}/{metric}" for split in SCORES], scale=100 if is_percentage(metric) else 1)
    tidy(above, x="", y="sparsity of the\nprunable weights (%)", title=title)
    unit = " (%)" if is_percentage(metric) else ""
    tidy(below, x="epoch", y=f"validation {metric}{unit}")
    above.set_ylabel("sparsity of the\nprunable weights (%)")
    legend(figure, above)
    return Chart(name, f"{title}: sparsity and validation {metric} over training; means over seeds", figure)


def _draw(axes: "Axes", point: Point, index: int, names: Sequence[str], *, scale: float) -> None:
    """The mean over seeds at each epoch that all runs have, with a band of one standard deviation."""
    curves = [_curve(run, names) for run in point.runs]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not epochs:
        return
    at = [Statistic(tuple(curve[epoch] for curve in curves)) for epoch in epochs]
    means, deviations = (
        [scale * value for value in values] for values in ([s.mean for s in at], [s.std or 0 for s in at])
    )
    look = style(index) | ({"markersize": 4} if len(epochs) < 40 else {"marker": ""})
    axes.plot(epochs, means, label=label(point.label), linewidth=1.3, markerfacecolor="none", zorder=3, **look)
    if len(curves) > 1:
        lower, upper = ([m + sign * d for m, d in zip(means, deviations, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, lower, upper, color=look["color"], alpha=0.15, linewidth=0)


def _curve(run: FinishedRun, names: Sequence[str]) -> dict[float, float]:
    """Epoch -> the first of these numbers that a line of metrics.jsonl has."""
    curve = {}
    for row in run.rows:
        epoch = finite(row.get("epoch"))
        value = next((number for name in names if (number := finite(row.get(name))) is not None), None)
        if epoch is not None and value is not None:
            curve[epoch] = value
    return curve
