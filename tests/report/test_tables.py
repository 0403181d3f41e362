"""What stands in cells: means, deviations, n, units, dashes, notes; and where each number comes from."""

import csv
import io
import json

import pytest

from pruneexp.report.build import Request, make_report
from pruneexp.report.grid import make_grid
from pruneexp.report.sources import as_csv, cell_records, run_records


@pytest.fixture
def tables(tmp_path):
    return lambda **options: make_report(Request([str(tmp_path / "runs")], bundled=False, **options)).tables


@pytest.fixture
def grid(tables):
    def grid(**options):
        (table,) = tables(**options)
        return make_grid(table)

    return grid


def texts(grid):
    return {", ".join(labels): [number.text for number in numbers] for labels, numbers in grid.rows}


def test_mean_and_sample_standard_deviation(make_run, grid):
    """0.80, 0.82, 0.90: the mean is 0.84, the squared deviations 16 + 4 + 36 make 56 / 2 = 28, and sqrt(28) = 5.29."""
    for seed, score in ((1, 0.80), (2, 0.82), (3, 0.90)):
        make_run(score, seed=seed)
    made = grid()
    assert texts(made) == {"pdp": ["84.00 ± 5.29"]}
    assert made.headings == ["test accuracy (%)"] and made.title == "resnet20 on digits: test accuracy (%)"
    assert list(made.notes) == ["Mean ± sample standard deviation over n = 3 seeds."]


def test_one_run_has_no_deviation(make_run, grid):
    make_run(0.5)
    assert texts(grid()) == {"pdp": ["50.00"]} and list(grid().notes) == ["One run each."]


def test_cells_with_fewer_runs_say_so_and_missing_ones_are_dashes(make_run, grid):
    for seed in (1, 2):
        make_run(0.5, seed=seed)
        make_run(0.5, seed=seed, sparsity=0.8)
    make_run(0.75, method="gmp", sparsity=0.8)
    made = grid()
    assert texts(made) == {"gmp": ["75.00 (n=1)", "-"], "pdp": ["50.00 ± 0.00", "50.00 ± 0.00"]}
    assert list(made.notes) == [
        "Mean ± sample standard deviation over n = 2 seeds, where no other n is given.",
        "Missing: gmp, 90 %.",
        "1 of 2 seeds: gmp, 80 %.",
    ]


def test_several_metrics_with_their_units(make_run, grid):
    make_run(0.5, dense_score=0.75)
    make_run(0.25, sparsity=0.8, dense_score=0.75)
    made = grid(
        metrics=["headline", "drop", "sparsity.prunable", "macs.effective", "macs.ratio", "size_bytes.compressed"]
    )
    assert made.headings == [
        "test accuracy (%)",
        "accuracy lost (points)",
        "sparsity (%)",
        "MACs (k)",
        "MACs left (%)",
        "size, zeros packed (B)",
    ]
    assert texts(made) == {
        "80 %": ["25.00", "50.00", "80.00", "400.0", "20.00", "925"],
        "90 %": ["50.00", "25.00", "90.00", "200.0", "10.00", "525"],
    }
    assert "Dense, resnet20, digits: accuracy 75.00 %." in made.notes


def test_numbers_of_an_export(make_run, grid):
    for seed, (masked, shrunk) in ((1, (0.008, 0.002)), (2, (0.008, 0.004))):
        run = make_run(0.5, seed=seed)
        (run / "export").mkdir()
        times = [{"variant": v, "batch_size": 8, "median": t} for v, t in (("masked", masked), ("shrunk", shrunk))]
        rows = [{"model": "shrunk", "score": 0.5, "parameters": 500, "macs": 1e6, "bytes": 2000}]
        (run / "export" / "export.json").write_text(json.dumps({"latency": times, "rows": rows}))
    made = grid(metrics=["latency.8", "speedup.8", "export.parameters", "export.score"])
    assert texts(made) == {"pdp": ["3.00 ± 1.41", "3.00 ± 1.41", "500 ± 0", "50.00 ± 0.00"]}
    assert made.headings == [
        "latency, batch 8 (ms)",
        "speed-up, batch 8 (x)",
        "parameters after export",
        "score after export (%)",
    ]


def test_correlations_are_no_percentages(make_run, grid):
    make_run(0.5, metric="pearson", dense_score=0.75)
    assert texts(grid()) == {"pdp": ["0.500"]}
    assert "Dense, resnet20, digits: pearson 0.750." in grid().notes


def test_dense_models_of_parts_of_the_data_are_apart(make_run, grid):
    for fraction, dense in ((None, 0.75), (0.5, 0.5)):
        for seed in (1, 2):
            make_run(0.25, seed=seed, dense_score=dense + seed / 100, dataset__fraction=fraction)
    made = grid()
    assert "Dense, resnet20, digits: accuracy 76.50 ± 0.71 % (n = 2)." in made.notes
    assert "Dense, resnet20, digits, dataset.fraction=0.5: accuracy 51.50 ± 0.71 % (n = 2)." in made.notes


def test_runs_of_several_headlines_make_several_tables(make_run, tables):
    make_run(0.5, dataset="glue/mrpc")
    make_run(0.75, dataset="glue/stsb", metric="pearson")
    first, second = (make_grid(table) for table in tables())
    assert (first.title, texts(first)) == ("resnet20 on glue/mrpc: test accuracy (%)", {"pdp": ["50.00"]})
    assert (second.title, texts(second)) == ("resnet20 on glue/stsb: test pearson", {"pdp": ["0.750"]})
    assert len(tables(metrics=["test.accuracy"])) == 1


def test_a_metric_that_no_run_has_is_named(make_run, tables):
    make_run(0.5)
    with pytest.raises(ValueError, match=r"--metric test.acuracy: no run has it; want one of test.accuracy"):
        tables(metrics=["test.acuracy"])


def test_a_number_that_is_not_finite_does_not_count(make_run, grid):
    make_run(0.5, seed=1)
    make_run(float("nan"), seed=2)
    assert texts(grid()) == {"pdp": ["50.00"]}


def test_a_method_that_finds_its_sparsity_is_missing_at_no_target(make_run, grid):
    make_run(0.5)
    make_run(0.75, method="str", found=0.85)
    made = grid()
    assert texts(made) == {"pdp": ["50.00"], "str": ["75.00"]}
    made = grid(rows=["method"], columns=["sparsity"])
    assert texts(made) == {"pdp": ["50.00", "-"], "str": ["-", "75.00"]}
    assert not any(note.startswith("Missing") for note in made.notes)


def test_rows_that_are_not_the_same_in_all_columns_are_noted(make_run, grid):
    make_run(sparsity=0.8, optimizer__learning_rate=0.1)
    make_run(sparsity=0.9, optimizer__learning_rate=0.2)
    assert (
        "Not the same in all columns of pdp: optimizer.learning_rate."
        in grid(rows=["method"], columns=["sparsity"]).notes
    )


def test_runs_of_several_commits_are_noted(make_run, grid):
    for seed, commit in ((1, "a" * 40), (2, "b" * 40 + "+")):
        run = make_run(seed=seed)
        (run / "meta.json").write_text(json.dumps({"commit": commit}))
    assert "Runs of different commits are averaged in 1 of the cells: aaaaaaaa, bbbbbbbb+." in grid().notes


def test_every_number_leads_to_hashes_and_commits(make_run, tables):
    folders = [make_run(score, seed=seed) for seed, score in ((2, 0.75), (1, 0.25))]
    (table,) = tables()
    (cell,) = cell_records(table)
    assert cell == {
        "method": "pdp",
        "metric": "headline",
        "quantity": "accuracy",
        "mean": 0.5,
        "std": pytest.approx(0.125**0.5),
        "n": 2,
        **dict.fromkeys(("paper", "paper_bound", "paper_std", "difference", "paper_source", "paper_certainty")),
        "hashes": "00000002 00000001",
        "commits": "c0ffee" * 6 + "c0ff",
    }
    rows = list(csv.DictReader(io.StringIO(as_csv(run_records(table)))))
    assert [(row["seed"], row["headline"], row["hash"]) for row in rows] == [
        ("1", "0.25", "00000002"),
        ("2", "0.75", "00000001"),
    ]
    assert [row["folder"] for row in rows] == [str(folder) for folder in reversed(folders)]
    assert rows[0]["command"] == "prune-run seed=1"


def test_a_spreadsheet_finds_no_formula_in_csv():
    text = as_csv([{"method": "=cmd|' /C calc'!A0", "mean": -1.5}, {"method": 'a,"b"\n', "mean": None}])
    assert list(csv.reader(io.StringIO(text))) == [["method", "mean"], ["'=cmd|' /C calc'!A0", "-1.5"], ['a,"b"\n', ""]]
