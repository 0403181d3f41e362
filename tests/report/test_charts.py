"""What charts draw: the right points, told apart without colour, in files that are the same each time."""

import json

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from safetensors.numpy import save_file

from pruneexp.report.build import Request, make_report
from pruneexp.report.chart_style import STYLES, label, literal
from pruneexp.report.charts import charts, write_charts
from pruneexp.report.score_charts import front


@pytest.fixture
def draw(tmp_path):
    """The charts of all runs by name."""

    def draw(**options):
        return {
            chart.name: chart
            for chart in charts(make_report(Request([str(tmp_path / "runs")], bundled=False, **options)))
        }

    return draw


def bars(chart):
    """Label -> (x, y, deviation of y) of the points with error bars."""
    found = {}
    for container in chart.figure.axes[0].containers:
        if isinstance(container, ErrorbarContainer):
            line, _, (_, vertical) = container
            half = [round(float(segment[1][1] - segment[0][1]) / 2, 6) for segment in vertical.get_segments()]
            points = [(round(float(x), 6), round(float(y), 6)) for x, y in zip(*line.get_data(), strict=True)]
            found[container.get_label()] = [(*point, deviation) for point, deviation in zip(points, half, strict=True)]
    return found


def lines(chart, axes=0):
    return {
        line.get_label(): [tuple(map(float, point)) for point in line.get_xydata()]
        for line in chart.figure.axes[axes].lines
    }


def test_scores_against_sparsity_macs_and_bytes(make_run, draw):
    for sparsity, scores in ((0.5, (0.875, 0.625)), (0.75, (0.5, 0.5))):
        for seed, score in enumerate(scores):
            make_run(score, seed=seed, sparsity=sparsity, dense_score=0.9)
    made = draw()
    deviation = round(100 * 0.125 * 2**0.5, 6)
    assert bars(made["sparsity"]) == {"pdp": [(50, 75, deviation), (75, 50, 0)]}
    assert bars(made["macs"]) == {"pdp": [(0.5, 50, 0), (1, 75, deviation)]}
    assert [x for x, *_ in bars(made["bytes"])["pdp"]] == [1.125, 2.125]
    axes = made["sparsity"].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("sparsity of the prunable weights (%)", "test accuracy (%)")
    assert (made["macs"].figure.axes[0].get_xlabel(), axes.get_title("left")) == (
        "MACs, zeros skipped (M)",
        "resnet20 on digits",
    )
    assert lines(made["sparsity"])["dense: 90.00 %"] == [(0, 90), (1, 90)]


def test_series_are_told_apart_without_colour(make_run, draw):
    for method in ("pdp", "gmp"):
        for sparsity in (0.5, 0.75):
            make_run(0.5, method=method, sparsity=sparsity)
    drawn = [container[0] for container in draw()["sparsity"].figure.axes[0].containers]
    for look in ("color", "marker", "linestyle"):
        assert len({str(getattr(line, f"get_{look}")()) for line in drawn}) == 2
    for look in ("color", "marker", "linestyle"):
        assert len({str(style[look]) for style in STYLES}) == len(STYLES)


def test_what_steers_a_method_that_finds_its_sparsity_makes_one_line(make_run, draw):
    for decay, found in ((1, 0.5), (2, 0.75)):
        make_run(0.5, method="str", method__weight_decay=decay, found=found)
        make_run(0.75, method="gmp", sparsity=found)
    assert bars(draw()["sparsity"]) == {"gmp": [(50, 75, 0), (75, 75, 0)], "str": [(50, 50, 0), (75, 50, 0)]}


def test_more_lines_than_can_be_told_apart_become_points_of_their_methods(make_run, draw):
    for number in range(1, 10):
        make_run(number / 10, method__tau=number)
    made = draw()
    assert len(bars(made["sparsity"])["pdp"]) == 9
    (container,) = made["sparsity"].figure.axes[0].containers
    assert container[0].get_linestyle() == "None"
    schedules = [chart for name, chart in made.items() if name.startswith("schedule")]
    assert [len(chart.figure.axes[0].lines) for chart in schedules] == [8, 1]


def test_many_lines_over_training_are_in_charts_of_one_sparsity_each(make_run, draw):
    for method in ("gmp", "pdp", "sr_ste"):
        for sparsity in (0.5, 0.75, 0.9):
            make_run(0.5, method=method, sparsity=sparsity)
    made = draw()
    assert [name for name in made if name.startswith("schedule")] == ["schedule_50", "schedule_75", "schedule_90"]
    assert [line.get_label() for line in made["schedule_75"].figure.axes[0].lines] == ["gmp", "pdp", "sr_ste"]
    assert "sparsity 75 %" in made["schedule_75"].caption


PAPER = """
paper: Doe
tables:
  - {name: T, certainty: paper, metric: accuracy, unit: "%", axes: [method, sparsity], where: {dataset: digits},
     cells: [[pdp, 0.5, 80], [pdp, 0.75, "> 60"], [rigl, 0.75, 70]]}
"""


def test_papers_points_are_open_markers(make_run, draw, tmp_path):
    (tmp_path / "own.yaml").write_text(PAPER)
    for sparsity in (0.5, 0.75):
        make_run(0.5, sparsity=sparsity)
    chart = draw(references=[tmp_path / "own.yaml"], papers=True)["sparsity"]
    drawn = {line.get_label(): line for line in chart.figure.axes[0].lines if "paper" in line.get_label()}
    assert {name: line.get_xydata().tolist() for name, line in drawn.items()} == {
        "pdp, paper": [[50, 80]],
        "rigl, paper": [[75, 70]],
    }
    ours = chart.figure.axes[0].containers[0][0]
    assert drawn["pdp, paper"].get_marker() == ours.get_marker() != drawn["rigl, paper"].get_marker()
    assert {line.get_markerfacecolor() for line in drawn.values()} == {"none"}


def test_papers_points_stand_in_the_chart_of_macs_where_the_paper_has_both(make_run, draw, tmp_path):
    macs = """
  - {name: U, certainty: paper, metric: macs.effective, axes: [method, sparsity], where: {dataset: digits},
     cells: [[pdp, 0.5, 4000000], [other, 0.75, 1000000]]}
"""
    (tmp_path / "own.yaml").write_text(PAPER + macs)
    for sparsity in (0.5, 0.75):
        make_run(0.5, sparsity=sparsity)
    chart = draw(references=[tmp_path / "own.yaml"], papers=True)["macs"]
    (paper,) = [line for line in chart.figure.axes[0].lines if "paper" in line.get_label()]
    ((x, y),) = paper.get_xydata().tolist()
    unit = chart.figure.axes[0].get_xlabel()
    assert (paper.get_label(), y) == ("pdp, paper", 80)
    assert x == pytest.approx({"(M)": 4, "(k)": 4000}[unit[unit.index("(") :]]), unit


def test_the_front_is_what_nothing_beats():
    points = [(3, 0.9), (1, 0.5), (2, 0.4), (2, 0.7), (3, 0.8), (4, 0.9)]
    assert front(points) == [(1, 0.5), (2, 0.7), (3, 0.9)]


def test_the_pareto_chart_joins_the_front(make_run, draw):
    for score, sparsity in ((0.5, 0.75), (0.75, 0.5), (0.25, 0.25)):
        make_run(score, sparsity=sparsity)
    assert lines(draw()["pareto"])["Pareto front"] == [(0.5, 50), (1, 75)]


def test_the_schedule_is_the_sparsity_over_training(make_run, draw):
    for seed, score in enumerate((0.25, 0.75)):
        make_run(score, seed=seed, sparsity=0.5)
    made = draw()["schedule"]
    assert lines(made)["pdp, 50 %"] == [(0, 0), (1, 12.5), (2, 25), (3, 37.5), (4, 50)]
    assert lines(made, axes=1)["pdp, 50 %"] == [(epoch, 50) for epoch in range(5)]
    assert made.figure.axes[1].get_xlabel() == "epoch"


def test_layers_from_input_to_output(make_run, draw):
    for seed in (1, 2):
        make_run(seed=seed, sparsity=0.5)
    axes = draw()["layers"].figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["conv1", "fc"]
    assert axes.containers[0][0].get_xydata().tolist() == [[50, 0], [50, 1]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the input at the top


def encoder(make_run, seed, masks):
    """A run of an encoder of one layer with two heads of width 2 and three FFN units."""
    run = make_run(0.5, seed=seed, sparsity=0.5, model__num_heads=2, summary={"info": {"kind": "text"}})
    part = "bert.encoder.layer.0."
    shapes = {
        "attention.self.value": (4, 4),
        "attention.output.dense": (4, 4),
        "intermediate.dense": (3, 4),
        "output.dense": (4, 3),
    }
    lines = ["name,shape,weights,zeros,sparsity,pruned,macs"]
    lines += [f'{part}{name}.weight,"{list(shape)}",16,8,0.5,True,1' for name, shape in shapes.items()]
    (run / "layers.csv").write_text("\n".join(lines))
    save_file(
        {f"{part}{name}.weight": np.array(mask, dtype=bool) for name, mask in masks.items()}, run / "masks.safetensors"
    )
    return run


def test_heads_and_units_that_an_encoder_keeps(make_run, draw):
    """A head needs a row of values and a column that reads them: head 0 has lost its rows, unit 2 its column."""
    rows, columns = [[0], [0], [1], [0]], [[1, 1, 0]]
    encoder(make_run, 1, {"attention.self.value": rows, "output.dense": columns})
    encoder(make_run, 2, {"output.dense": [[1, 0, 0]]})
    (chart,) = (chart for name, chart in draw().items() if name.startswith("encoder"))
    heads, units = chart.figure.axes
    assert np.array(heads.collections[0].get_array()).tolist() == [[0.5, 1.0]]
    assert b"<image" not in chart.svg()  # which a page would have to load
    assert heads.get_title() == "heads: 1.5 of 2 kept" and units.get_title() == "FFN units: 1.5 of 3 kept"
    assert [bar.get_width() for bar in units.patches] == [3, 1.5]


def test_an_encoder_that_keeps_everything_or_has_damaged_masks_has_no_such_chart(make_run, draw):
    encoder(make_run, 1, {"attention.self.value": np.ones((4, 4))})
    (encoder(make_run, 2, {}) / "masks.safetensors").write_bytes(b"damaged")
    assert not [name for name in draw() if name.startswith("encoder")]


def test_charts_of_several_data_sets_are_apart(make_run, draw):
    make_run(0.5)
    make_run(0.5, dataset="cifar10")
    assert {"resnet20_on_digits_sparsity", "resnet20_on_cifar10_sparsity"} <= set(draw())


def test_latencies_of_exports_are_an_axis(make_run, draw):
    run = make_run(0.5)
    (run / "export").mkdir()
    (run / "export" / "export.json").write_text(
        json.dumps({"latency": [{"variant": "shrunk", "batch_size": 1, "median": 0.002}]})
    )
    chart = draw()["latency_1"]
    assert bars(chart) == {"pdp": [(2, 50, 0)]} and chart.figure.axes[0].get_xlabel() == "latency, batch 1 (ms)"


def test_runs_without_logs_or_layers_have_the_other_charts(make_run, draw):
    run = make_run(0.5)
    (run / "metrics.jsonl").write_text("broken")
    (run / "layers.csv").write_text("a,b\n1,2\n")
    assert set(draw()) == {"sparsity", "macs", "bytes"}


def test_files_are_whole_and_the_same_each_time(make_run, tmp_path):
    for note in ("$\\frac{_x", "<script>"):
        (make_run(0.5, method__note=note) / "metrics.jsonl").unlink()
    report = make_report(Request([str(tmp_path / "runs")], bundled=False))
    written = write_charts(charts(report), tmp_path / "plots")
    assert {path.suffix for path in written} == {".png", ".svg"} and len(written) == len(set(written))
    first = {path.name: path.read_bytes() for path in written}
    for name, content in first.items():
        assert content[:8] == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else content.rstrip().endswith(b"</svg>")
    assert all(first[f"{chart.name}.svg"] == chart.svg() for chart in charts(report))
    assert {path.name for path in (tmp_path / "plots").iterdir()} == set(first)


def test_texts_of_files_are_no_formulas():
    assert literal("a$b$\nc") == r"a\$b\$ c" and label("__x") == "x" and label("_") == "-"
