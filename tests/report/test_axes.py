"""Runs of one kind make a cell: what tells kinds apart becomes rows and columns, and nothing else is averaged."""

import pytest

from pruneexp.report.axes import Axes, chosen_axes
from pruneexp.report.build import Request, make_report
from pruneexp.report.collect import find_runs


@pytest.fixture
def axes_of(tmp_path):
    return lambda *rows, columns=(): chosen_axes(find_runs([str(tmp_path / "runs")]).runs, rows, columns)


@pytest.fixture
def report(tmp_path):
    return lambda **options: make_report(Request([str(tmp_path / "runs")], bundled=False, **options))


def test_seeds_alone_are_one_cell(make_run, axes_of, report):
    for seed in (1, 2, 3):
        make_run(seed=seed)
    assert axes_of() == Axes(("method",), ())
    (table,) = report().tables
    assert [len(runs) for runs in table.layout.runs.values()] == [3]


def test_methods_by_sparsities(make_run, axes_of):
    for method in ("pdp", "gmp"):
        for sparsity in (0.8, 0.9):
            make_run(method=method, sparsity=sparsity)
    assert axes_of() == Axes(("method",), ("sparsity",))


def test_what_a_method_brings_with_it_is_no_axis(make_run, axes_of):
    make_run(method="gmp", method__update_every=10, schedule__end=0.2)
    make_run(method="pdp", method__tau=0.1)
    assert axes_of() == Axes(("method",), ())


def test_an_option_that_alone_differs_is_an_axis(make_run, axes_of):
    for tau in (0.01, 0.1):
        for sparsity in (0.8, 0.9):
            make_run(method__tau=tau, sparsity=sparsity)
    assert axes_of() == Axes(("method.tau",), ("sparsity",))


def test_one_of_two_options_that_change_together_is_enough(make_run, axes_of):
    make_run(method__tau=0.01, optimizer__learning_rate=0.1)
    make_run(method__tau=0.1, optimizer__learning_rate=0.2)
    assert len(axes_of().rows) == 1


def test_groups_of_weights_are_columns_by_their_names(make_run, axes_of):
    for n in (1, 2):
        for method in ("pdp", "sr_ste"):
            make_run(method=method, pattern="nm", pattern__n=n, pattern__m=4, sparsity=1 - n / 4)
    assert axes_of() == Axes(("method",), ("pattern",))


def test_patterns_do_not_hide_behind_sparsities(make_run, axes_of):
    """Each cell would be of one kind, but one row would compare channels with single weights."""
    make_run(sparsity=0.5, pattern="channel", pattern___target_="pruneexp.structured.Channel")
    make_run(sparsity=0.9)
    assert axes_of() == Axes(("pattern",), ("sparsity",))


def test_given_axes_are_kept_and_completed(make_run, axes_of):
    for method in ("pdp", "gmp"):
        for sparsity in (0.8, 0.9):
            make_run(method=method, sparsity=sparsity)
    assert axes_of("sparsity") == Axes(("sparsity",), ("method",))
    assert axes_of(columns=("method",)) == Axes(("sparsity",), ("method",))
    assert axes_of("sparsity", columns=("method",)) == Axes(("sparsity",), ("method",))


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["colour"], [], "axis colour: no run has such an option; what differs between the runs is method, sparsity"),
        (["method"], ["method"], "axis method: is both rows and columns"),
    ],
)
def test_axes_that_cannot_be(make_run, report, rows, columns, message):
    make_run(method="pdp", sparsity=0.8)
    make_run(method="gmp", sparsity=0.9)
    with pytest.raises(ValueError, match=message):
        report(rows=rows, columns=columns)


def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(make_run, report):
    make_run(seed=1, optimizer__learning_rate=0.1)
    make_run(seed=2, optimizer__learning_rate=0.01)
    with pytest.raises(ValueError) as error:
        report(rows=["method"], columns=["sparsity"])
    assert str(error.value) == (
        "pdp, 90 %: would average runs that differ in more than their seed: optimizer.learning_rate=0.01 and 0.1; keep "
        "one kind with --filter optimizer.learning_rate=0.1, or tell them apart with --rows "
        "method,optimizer.learning_rate"
    )
    (table,) = report(rows=["method"], columns=["sparsity"], filters=["optimizer.learning_rate=0.1"]).tables
    assert [run.seed for run in table.layout.all_runs] == [1]
    assert len(report(rows=["method", "optimizer.learning_rate"]).tables[0].layout.rows) == 2
    (table,) = report(rows=["method"], columns=["sparsity"], ignored=["optimizer"]).tables
    assert len(table.layout.all_runs) == 2


def test_a_seed_counts_once_even_where_differences_are_ignored(make_run, report):
    make_run(seed=1, optimizer__learning_rate=0.1)
    make_run(seed=1, optimizer__learning_rate=0.01)
    with pytest.raises(ValueError, match="has seed 1 twice"):
        report(rows=["method"], columns=["sparsity"], ignored=["optimizer.learning_rate"])


@pytest.mark.parametrize(
    "option",
    [
        {"device": "cuda"},
        {"output_dir": "/elsewhere"},
        {"group": "other"},
        {"experiment_name": "x"},
        {"force": True},
        {"compile": True},
        {"method__added_later": None},
        {"training__ema_decay": False},
        {"dataset__root": "/data"},
    ],
    ids=str,
)
def test_what_does_not_change_the_result_does_not_keep_runs_apart(make_run, report, option):
    make_run(seed=1)
    make_run(seed=2, **option)
    (table,) = report(rows=["method"], columns=["sparsity"]).tables
    assert [len(runs) for runs in table.layout.runs.values()] == [2]


@pytest.mark.parametrize(
    "option",
    [
        {"epochs": 5},
        {"method__tau": 0.1},
        {"dense": "pretrained"},
        {"precision": "bf16"},
        {"method__exclude": ["classifier"]},
        {"schedule__end": 0.5},
        {"dataset__max_examples": 100},
        {"label_smoothing": 0.1},
        {"model__depth": 32},
    ],
    ids=str,
)
def test_what_changes_the_result_does(make_run, report, option):
    make_run(seed=1)
    make_run(seed=2, **option)
    with pytest.raises(ValueError, match="differ in more than their seed"):
        report(rows=["method"], columns=["dataset"])


def test_checkpoints_are_compared_by_their_content(make_run, report, tmp_path):
    for name, content in (("a.pt", "same"), ("b.pt", "same"), ("c.pt", "other")):
        (tmp_path / name).write_text(content)
    make_run(seed=1, model__checkpoint=str(tmp_path / "a.pt"))
    make_run(seed=2, model__checkpoint=str(tmp_path / "b.pt"))
    assert len(report().tables[0].layout.all_runs) == 2
    make_run(seed=3, model__checkpoint=str(tmp_path / "c.pt"))
    with pytest.raises(ValueError, match=r"model\.checkpoint=.*c\.pt"):
        report(rows=["method"], columns=["sparsity"])


def test_the_dense_run_of_a_sweep_stands_in_a_note(make_run, report):
    make_run(0.75, method="dense", seed=1)
    make_run(0.5, seed=1, dense="train")
    made = report()
    assert [run.config["choices"]["method"] for run in made.runs] == ["pdp"] and len(made.dense) == 1
    (table,) = report(filters=["method=dense,pdp"]).tables
    assert table.layout.rows == [("dense",), ("pdp",)]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["sparsity=0.9"], {1, 2}),
        (["sparsity=90 %"], {1, 2}),
        (["sparsity=0.8,0.9"], {1, 2, 3}),
        (["sparsity!=0.9"], {3}),
        (["sparsity=0.9", "seed=2"], {2}),
        (["model.checkpoint=null"], {1, 2, 3}),
    ],
    ids=str,
)
def test_filters(make_run, report, filters, kept):
    make_run(seed=1)
    make_run(seed=2)
    make_run(seed=3, sparsity=0.8)
    assert {run.seed for run in report(filters=filters).runs} == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sparsity", "--filter sparsity: want name=value"),
        ("=0.9", "--filter =0.9: want name=value"),
        ("sparsity=0.7", "--filter sparsity=0.7: leaves no run; sparsity is 0.9"),
    ],
)
def test_filters_that_cannot_be(make_run, report, text, message):
    make_run()
    with pytest.raises(ValueError) as error:
        report(filters=[text])
    assert message in str(error.value)
