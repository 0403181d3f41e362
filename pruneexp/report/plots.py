"""The plot that every run leaves: its score against its sparsity."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruneexp.report.scores import is_percentage, score_text
from pruneexp.whole_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color Universal Design" (2008): distinct for colour-blind readers. Every series also has a marker and
# a line style of its own, for print in black and white.
BLUE, VERMILION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#707070"
SERIES = (
    ("validation", "validation", {"color": BLUE, "marker": "o", "linestyle": "-"}),
    ("validation_hard", "validation, hard masks", {"color": VERMILION, "marker": "s", "linestyle": "--"}),
)
# Sparsities closer together than this are one point on paper; then training time is the better axis.
NARROW = 0.005
TITLE_WIDTH = 80  # characters of 9 points that fit above the axes


def accuracy_vs_sparsity(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    metric: str,
    dense: float | None,
    title: str,
    test: float | None = None,
) -> None:
    """Writes a PNG: `metric` on validation against the sparsity of the prunable weights, joined in order of training.

    Where the sparsity never changes (a dense run, masks found before training) it is drawn against epochs.

    rows: the lines of metrics.jsonl. dense, test: the scores of the dense and of the final model on the test split.
    The file appears whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    by_sparsity = _spread([row["sparsity/prunable"] for row in rows]) > NARROW
    _draw(axes, rows, "sparsity/prunable" if by_sparsity else "epoch", metric)
    scale = _scale(metric)
    if dense is not None:
        label = f"dense, test: {score_text(metric, dense)}"
        axes.axhline(dense * scale, color=GREY, linestyle=":", linewidth=1.6, label=label, zorder=1)
    if test is not None and rows:
        label = f"final, test: {score_text(metric, test)}"
        x = rows[-1]["sparsity/prunable" if by_sparsity else "epoch"]
        axes.plot([x], [test * scale], color=BLACK, marker="*", markersize=11, linestyle="none", label=label, zorder=4)
    _label(axes, rows, title, metric=metric, by_sparsity=by_sparsity)
    with replacing(path) as temporary:
        canvas.print_figure(temporary, format="png")


def _draw(axes: "Axes", rows: Sequence[Mapping[str, Any]], x: str, metric: str) -> None:
    """One line for each split that has the metric."""
    for split, label, style in SERIES:
        key = f"{split}/{metric}"
        points = [(row[x], row[key] * _scale(metric)) for row in rows if math.isfinite(row.get(key, math.nan))]
        if points:
            # Hollow, since soft and hard scores often coincide: one marker shows through the other.
            size = {"markersize": 5 if len(points) < 40 else 3, "markerfacecolor": "none", "linewidth": 1.2}
            axes.plot(*zip(*points, strict=True), label=label, zorder=3, **size, **style)


def _label(axes: "Axes", rows: Sequence[Mapping[str, Any]], title: str, *, metric: str, by_sparsity: bool) -> None:
    unit = " (%)" if is_percentage(metric) else ""
    axes.set_ylabel(metric.replace("_", " ") + unit)
    if by_sparsity:
        axes.set_xlabel("sparsity of the prunable weights")
    else:
        sparsity = f", sparsity {rows[-1]['sparsity/prunable']:.3g} throughout" if rows else ""
        axes.set_xlabel("epoch" + sparsity)
        end = max(1.0, *(row["epoch"] for row in rows)) if rows else 1.0
        axes.set_xlim(-0.03 * end, 1.03 * end)
    axes.set_title(title, fontsize=min(9.0, 9.0 * TITLE_WIDTH / max(len(title), 1)))
    axes.margins(0.05, 0.08)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", loc="best")


def _scale(metric: str) -> float:
    return 100.0 if is_percentage(metric) else 1.0


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0
