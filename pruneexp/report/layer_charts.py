"""How sparse each layer is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruneexp.report.chart_style import Chart, label, legend, literal, new_figure, style, tidy
from pruneexp.report.finished import FinishedRun
from pruneexp.report.series import Point, shares
from pruneexp.report.tables import Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOGETHER = 4  # of all sparsities in one chart; with more, each sparsity has its own
SHOWN = 120  # layers; of a larger network the first


def layer_charts(runs: Sequence[FinishedRun], title: str) -> list[Chart]:
    """The sparsity of each pruned layer, one chart for each sparsity where there are many."""
    pruned = [run for run in runs if _layers(run)]
    return [
        _chart(share.points, title + share.title, f"layers{share.name}") for share in shares(pruned, together=TOGETHER)
    ]


def _chart(points: Sequence[Point], title: str, name: str) -> Chart:
    names = list(dict.fromkeys(layer for point in points for run in point.runs for layer in _layers(run)))[:SHOWN]
    figure = new_figure(6.4, 1.4 + 0.17 * len(names))
    axes = figure.add_subplot()
    for index, point in enumerate(points):
        _draw(axes, point, names, index)
    tidy(axes, x="sparsity of the layer (%)", y="", title=title)
    axes.set_yticks(range(len(names)), [literal(_short(layer)) for layer in names], fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the input's layer at the top
    axes.set_xlim(-2, 102)
    legend(figure, axes)
    return Chart(
        name, f"{title}: sparsity of each pruned layer, from input to output; mean and deviation over seeds", figure
    )


def _draw(axes: "Axes", point: Point, names: Sequence[str], index: int) -> None:
    sparsities = [_layers(run) for run in point.runs]
    rows = [
        (y, Statistic(known))
        for y, name in enumerate(names)
        if (known := tuple(s[name] for s in sparsities if name in s))
    ]
    axes.errorbar(
        [100 * statistic.mean for _, statistic in rows],
        [y for y, _ in rows],
        xerr=[100 * (statistic.std or 0.0) for _, statistic in rows],
        label=label(point.label),
        linewidth=1.0,
        elinewidth=0.9,
        capsize=2,
        markersize=4.5,
        markerfacecolor="none",
        **style(index),
    )


def _layers(run: FinishedRun) -> dict[str, float]:
    """Layer -> sparsity in [0, 1], of the pruned weights with two dimensions or more, in the network's order."""
    found = {}
    for row in run.layers:
        try:
            if row["pruned"] == "True" and "," in row["shape"]:
                found[row["name"]] = float(row["sparsity"])
        except (KeyError, ValueError):
            continue  # a line that is being written, or not ours
    return found


def _short(name: str) -> str:
    """A weight's name as a tick: "layer1.0.conv1"."""
    return name.removesuffix(".weight").replace("bert.encoder.layer.", "").replace("attention.output", "attention.out")
