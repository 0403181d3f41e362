import math

import matplotlib.figure
import pytest

from pruneexp.report.plots import accuracy_vs_sparsity


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws and returns the axes; the file must be there and be a PNG."""
    figures = []

    class Recorded(matplotlib.figure.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Recorded)

    def draw(rows, *, metric="accuracy", dense=None, test=None):
        path = tmp_path / "accuracy_vs_sparsity.png"
        accuracy_vs_sparsity(rows, path, metric=metric, dense=dense, test=test, title="run")
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        return figures[-1].axes[0]

    return draw


def line(axes, label):
    """The points of the one line with such a label."""
    (found,) = [line for line in axes.lines if line.get_label().startswith(label)]
    return [(float(x), float(y)) for x, y in zip(found.get_xdata(), found.get_ydata(), strict=True)]


def labels(axes):
    return [line.get_label() for line in axes.lines]


def row(sparsity, accuracy, epoch=0.0, **more):
    return {
        "step": int(10 * epoch),
        "epoch": epoch,
        "sparsity/prunable": sparsity,
        "validation/accuracy": accuracy,
    } | more


def test_points_stand_at_their_sparsity_in_order_of_training(drawn):
    axes = drawn([row(0.0, 0.75), row(0.5, 0.5, 1.0), row(0.25, 0.625, 2.0)], dense=0.875, test=0.25)
    assert line(axes, "validation") == [(0.0, 75.0), (0.5, 50.0), (0.25, 62.5)]
    assert line(axes, "dense, test: 87.50 %") == [(0.0, 87.5), (1.0, 87.5)]  # x of a horizontal line: of the axes
    assert line(axes, "final, test: 25.00 %") == [(0.25, 25.0)]
    assert axes.get_xlabel() == "sparsity of the prunable weights" and axes.get_ylabel() == "accuracy (%)"
    assert axes.get_title() == "run" and len(axes.get_legend().get_texts()) == 3


def test_hard_scores_are_a_second_line_told_apart_without_colour(drawn):
    hard = "validation_hard/accuracy"
    axes = drawn([row(0.0, 0.5), row(0.5, 0.75, 1.0, **{hard: 0.25}), row(0.75, 0.5, 2.0, **{hard: 0.5})], test=0.5)
    assert line(axes, "validation, hard masks") == [(0.5, 25.0), (0.75, 50.0)]
    for look in ("marker", "linestyle", "color"):
        assert len({getattr(line, f"get_{look}")() for line in axes.lines}) == 3


@pytest.mark.parametrize(
    "sparsity, label", [(0.0, "epoch, sparsity 0 throughout"), (0.98, "epoch, sparsity 0.98 throughout")]
)
def test_a_constant_sparsity_is_drawn_against_epochs(drawn, sparsity, label):
    axes = drawn([row(sparsity, 0.5, 1.0), row(sparsity, 0.75, 2.0)], test=0.5)
    assert line(axes, "validation") == [(1.0, 50.0), (2.0, 75.0)] and line(axes, "final") == [(2.0, 50.0)]
    assert axes.get_xlabel() == label
    assert axes.get_xlim()[0] < 0.0 and 2.0 < axes.get_xlim()[1] < 2.2


def test_a_single_jump_is_drawn_against_sparsity(drawn):
    axes = drawn([row(0.0, 0.75), row(0.9, 0.5, 1.0), row(0.9, 0.625, 2.0)])
    assert line(axes, "validation") == [(0.0, 75.0), (0.9, 50.0), (0.9, 62.5)]
    assert axes.get_xlim()[0] < 0.0 and 0.9 < axes.get_xlim()[1] < 1.0


def test_correlations_are_no_percentages(drawn):
    rows = [{"epoch": epoch, "sparsity/prunable": epoch / 4, "validation/pearson": 0.5} for epoch in (0.0, 1.0)]
    axes = drawn(rows, metric="pearson", dense=0.75)
    assert line(axes, "validation") == [(0.0, 0.5), (0.25, 0.5)]
    assert axes.get_ylabel() == "pearson" and "dense, test: 0.750" in labels(axes)


def test_rows_without_a_finite_score_are_left_out(drawn):
    without = {"step": 1, "epoch": 1.0, "sparsity/prunable": 0.25}
    axes = drawn([row(0.0, 0.5), without, row(0.5, math.nan, 2.0), row(0.75, 0.25, 3.0)])
    assert line(axes, "validation") == [(0.0, 50.0), (0.75, 25.0)]


@pytest.mark.parametrize("rows", [[], [row(0.5, 0.5, 0.0)]])
def test_few_rows_are_a_plot_too(drawn, rows):
    axes = drawn(rows, dense=0.75, test=0.5)
    assert ("validation" in labels(axes)) == bool(rows)
    assert axes.get_xlim()[0] < 0.0 < 1.0 < axes.get_xlim()[1]


def test_an_interrupted_write_leaves_the_old_plot(tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = tmp_path / "accuracy_vs_sparsity.png"
    path.write_bytes(b"old")

    def fail(_, file, **__):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", fail)
    with pytest.raises(OSError, match="disk full"):
        accuracy_vs_sparsity([row(0.0, 0.5)], path, metric="accuracy", dense=None, title="run")
    assert path.read_bytes() == b"old"
