"""Scores against sparsity, MACs, bytes and latency, with the papers' points, and the Pareto front."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pruneexp.report.chart_style import GREY, Chart, label, legend, new_figure, paper_style, style, tidy
from pruneexp.report.finished import FinishedRun
from pruneexp.report.grid import heading
from pruneexp.report.metrics import Metric, metric, metric_names
from pruneexp.report.number_text import NumberFormat, number_format
from pruneexp.report.numbers import number
from pruneexp.report.papers import PaperPoint, paper_points
from pruneexp.report.scores import score_text
from pruneexp.report.series import Series, series_of
from pruneexp.report.tables import Statistic, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AGAINST = {
    "sparsity.prunable": "sparsity of the prunable weights",
    "macs.effective": "MACs, zeros skipped",
    "size_bytes.compressed": "size, zeros packed",
}
"""What scores are drawn against. Latencies, of exported models, follow."""

FILES = {"sparsity.prunable": "sparsity", "macs.effective": "macs", "size_bytes.compressed": "bytes"}

WIDE = 20  # times the smallest value that the largest must be for a logarithmic axis


def score_charts(runs: Sequence[FinishedRun], title: str, tables: Sequence[Table]) -> list[Chart]:
    """The charts of runs of one headline, model and data set. tables: with the papers' numbers."""
    score, series, known = metric("headline", runs), series_of(runs), metric_names(runs)
    papers = paper_points(tables, runs, series)
    names = [name for name in AGAINST if name in known] + [name for name in known if name.startswith("latency.")]
    charts = []
    for name in names:
        across = metric(name, runs)
        figure = new_figure()
        axes = figure.add_subplot()
        x, y = _format(across, series), _format(score, series)
        for index, one in enumerate(series):
            _draw(axes, one, index, {"x": (across, x), "y": (score, y)})
        _draw_papers(axes, [point for point in papers if point.along == name], series, {"x": x, "y": y})
        _dense_line(axes, runs, score, y)
        _finish(axes, x, AGAINST.get(name, across.label), heading(score, y), title)
        legend(figure, axes)
        what = AGAINST.get(name, across.label)
        charts.append(Chart(f"{FILES.get(name, name.replace('.', '_'))}", _caption(title, score, what), figure))
    if "macs.effective" in known and sum(len(one.points) for one in series) > 1:
        charts.append(_pareto(series, score, metric("macs.effective", runs), title))
    return charts


def _format(what: Metric, series: Sequence[Series]) -> NumberFormat:
    statistics = [point.statistic(what.value) for one in series for point in one.points]
    return number_format(what, [statistic.mean for statistic in statistics if statistic])


def _caption(title: str, score: Metric, what: str) -> str:
    return f"{title}: {score.label} against {what}; mean and standard deviation over seeds"


def _draw(axes: "Axes", series: Series, index: int, along: Mapping[str, tuple[Metric, NumberFormat]]) -> None:
    """One series: a marker for each point with the deviation in both directions, joined in order of x."""
    places = []
    for point in series.points:
        x, y = (point.statistic(what.value) for what, _ in along.values())
        if x and y:
            places.append((x, y))
    if not places:
        return
    places.sort(key=lambda place: place[0].mean)
    scale = {side: number_format.scale for side, (_, number_format) in along.items()}
    look = style(index) | ({} if series.joined and len(places) > 1 else {"linestyle": "none"})
    axes.errorbar(
        [x.mean * scale["x"] for x, _ in places],
        [y.mean * scale["y"] for _, y in places],
        xerr=_deviations([x for x, _ in places], scale["x"]),
        yerr=_deviations([y for _, y in places], scale["y"]),
        label=label(series.label),
        capsize=2.5,
        elinewidth=0.9,
        linewidth=1.3,
        markersize=5,
        zorder=3,
        **look,
    )


def _deviations(statistics: Sequence[Statistic], scale: float) -> list[float]:
    return [(statistic.std or 0.0) * scale for statistic in statistics]


def _draw_papers(
    axes: "Axes", papers: Sequence[PaperPoint], series: Sequence[Series], along: Mapping[str, NumberFormat]
) -> None:
    """The papers' numbers as open markers, in the look of our series of the same method where there is one."""
    looks = {one.label: style(index) for index, one in enumerate(series)}
    others = list(dict.fromkeys(point.label for point in papers if point.series not in looks))
    for name in dict.fromkeys(point.label for point in papers):
        points = [point for point in papers if point.label == name]
        look = paper_style(others.index(name)) if name in others else looks[points[0].series]
        axes.plot(
            [point.at * along["x"].scale for point in points],
            [point.value * along["y"].scale for point in points],
            label=label(name),
            linestyle="none",
            marker=look["marker"],
            markersize=8,
            markerfacecolor="none",
            markeredgewidth=1.4,
            markeredgecolor=look["color"],
            zorder=4,
        )


def _dense_line(axes: "Axes", runs: Sequence[FinishedRun], score: Metric, y: NumberFormat) -> None:
    """The score of the dense model, where the runs know it; the mean, where each seed has its own."""
    by_seed = {(run.seed, dense) for run in runs if (dense := number(run, "dense.value")) is not None}
    if by_seed:
        mean = Statistic(tuple(value for _, value in by_seed)).mean
        text = f"dense: {score_text(score.quantity, mean)}"
        axes.axhline(mean * y.scale, color=GREY, linestyle=":", linewidth=1.4, label=text, zorder=1)


def _finish(axes: "Axes", x: NumberFormat, what: str, y: str, title: str) -> None:
    tidy(axes, x=f"{what} ({x.unit})" if x.unit else what, y=y, title=title)
    left, right = axes.dataLim.x0, axes.dataLim.x1
    if x.unit != "%" and left > 0 and right / left > WIDE:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.06, 0.08)


def _pareto(series: Sequence[Series], score: Metric, cost: Metric, title: str) -> Chart:
    """All points, and a step line through those that no other beats in both score and MACs."""
    figure = new_figure()
    axes = figure.add_subplot()
    x, y = _format(cost, series), _format(score, series)
    means = []
    for index, one in enumerate(series):
        pairs = [(point.statistic(cost.value), point.statistic(score.value)) for point in one.points]
        own = [(a.mean * x.scale, b.mean * y.scale) for a, b in pairs if a and b]
        means += own
        if own:
            look = style(index) | {"linestyle": "none"}
            axes.plot(*zip(*own, strict=True), label=label(one.label), markersize=6, zorder=3, **look)
    best = front(means)
    axes.step(*zip(*best, strict=True), where="post", color="#000000", linewidth=1.2, label="Pareto front", zorder=2)
    _finish(axes, x, AGAINST[cost.name], heading(score, y), title)
    legend(figure, axes)
    caption = f"{title}: the Pareto front, {score.label} against {AGAINST[cost.name]}; means over seeds"
    return Chart("pareto", caption, figure)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other beats, being no dearer and better, or cheaper and no worse; by cost."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best
