"""A table's sweep: cells by its labels, with what became of the runs that are not finished."""

import json

import pytest

from pruneexp.report.build import Request, make_report
from pruneexp.report.grid import make_grid


@pytest.fixture
def sweep(make_run, tmp_path):
    """Writes a sweep file of finished (a score), failed (an error), running and left runs."""

    def write(cells, **changes):
        entries = []
        for row, column, seed, result, options in cells:
            folder = f"run-{row}-{column}-{seed}"
            entry = {"row": row, "column": column, "seed": seed, "folder": folder, "overrides": [], "state": "done"}
            if isinstance(result, float):
                make_run(result, seed=seed, folder=tmp_path / folder, **options)
            elif result == "running":
                make_run(seed=seed, folder=tmp_path / folder, finished=False, **options)
                entry["state"] = "running"
            elif result == "left":
                entry["state"] = "left"
            else:
                entry |= {"state": "failed", "error": result}
            entries.append(entry)
        content = {
            "version": 1,
            "table": "mine",
            "size": "full",
            "title": "PDP against GMP",
            "source": "ours",
            "reference": None,
            "metric": None,
            "rows": ["PDP", "GMP"],
            "columns": ["80 %", "90 %"],
            "command": ["-m", "table=mine"],
            "runs": entries,
        }
        path = tmp_path / "mine.sweep.json"
        path.write_text(json.dumps(content | changes))
        return path

    return write


PDP, GMP = {"method": "pdp"}, {"method": "gmp"}
CELLS = [
    ("PDP", "80 %", 1, 0.75, PDP | {"sparsity": 0.8}),
    ("PDP", "80 %", 2, 0.25, PDP | {"sparsity": 0.8}),
    ("PDP", "90 %", 1, 0.5, PDP | {"sparsity": 0.9}),
    ("PDP", "90 %", 2, "running", PDP | {"sparsity": 0.9}),
    ("GMP", "80 %", 1, "out of memory", GMP | {"sparsity": 0.8}),
    ("GMP", "80 %", 2, "left", GMP | {"sparsity": 0.8}),
]


def report(path, **options):
    return make_report(Request([str(path)], bundled=False, **options))


def test_cells_are_those_of_the_table(sweep):
    made = report(sweep(CELLS))
    grid = make_grid(made.tables[0])
    assert grid.title == "PDP against GMP: test accuracy (%)"
    assert list(grid.labels) == [""] and grid.headings == ["80 %", "90 %"]
    assert [(list(labels), [number.text for number in numbers]) for labels, numbers in grid.rows] == [
        (["PDP"], ["50.00 ± 35.36", "50.00 (n=1)"]),
        (["GMP"], ["-", "-"]),
    ]
    assert list(grid.notes)[1:] == [
        "Missing: GMP, 80 %: seed 1: out of memory; seed 2: not started.",
        "1 of 2 seeds: PDP, 90 %: seed 2: running or interrupted at step 10 of 20.",
    ]
    assert {(one.kind, one.reason) for one in made.left_out} == {
        ("unfinished", "running or interrupted at step 10 of 20"),
        ("failed", "out of memory"),
        ("missing", "not started"),
    }
    assert made.sweep.command == "prune-run -m table=mine"


def test_one_run_may_stand_in_several_cells(sweep, tmp_path):
    path = sweep([("PDP", "80 %", 1, 0.75, PDP), ("GMP", "80 %", 1, 0.5, GMP)])
    content = json.loads(path.read_text())
    content["runs"] += [{**content["runs"][0], "column": "90 %"}]
    path.write_text(json.dumps(content))
    made = report(path)
    (_, first), (_, second) = make_grid(made.tables[0]).rows
    assert [number.text for number in first] == ["75.00", "75.00"] and second[0].text == "50.00"
    assert len(made.runs) == 2


def test_a_cell_of_a_table_that_mixes_runs_is_refused(sweep):
    cells = [("PDP", "80 %", seed, 0.5, PDP | {"optimizer__learning_rate": seed / 10}) for seed in (1, 2)]
    with pytest.raises(ValueError, match=r"PDP, 80 %: would average .*optimizer.learning_rate=0.1 and 0.2"):
        report(sweep(cells))


def test_a_table_of_two_quantities_is_two_tables(sweep):
    cells = [("PDP", "80 %", 1, 0.5, PDP), ("GMP", "80 %", 1, 0.25, GMP | {"metric": "pearson"})]
    first, second = (make_grid(table) for table in report(sweep(cells)).tables)
    assert (first.title, [list(labels) for labels, _ in first.rows]) == (
        "PDP against GMP: test accuracy (%)",
        [["PDP"]],
    )
    assert (second.title, [list(labels) for labels, _ in second.rows]) == ("PDP against GMP: test pearson", [["GMP"]])


def test_other_rows_and_columns_may_be_asked_for(sweep):
    (table,) = report(sweep(CELLS), rows=["sparsity"], columns=["method"]).tables
    assert table.layout.axes.rows == ("sparsity",)


def test_a_sweep_without_a_table_is_laid_out_by_its_options(sweep):
    (table,) = report(sweep(CELLS, table=None)).tables
    assert table.layout.axes.rows == ("sparsity",) and not table.layout.title


def test_a_tables_metric_and_reference_are_its_own(sweep, tmp_path):
    table = "{name: Table 1, certainty: paper, metric: loss, axes: [row, column], cells: [[PDP, 80 %, 1.25]]}"
    (tmp_path / "own.yaml").write_text(f"paper: Doe\ntables: [{table}]")
    path = sweep(CELLS, metric="loss", reference=str(tmp_path / "own.yaml"))
    (table,) = make_report(Request([str(path)])).tables
    (metric,) = table.metrics
    assert metric.name == "test.loss" and table.difference((("PDP",), ("80 %",)), metric) == 0.25


BAD = [
    ("", "is damaged"),
    ("[]", "is no sweep file of version 1"),
    ('{"version": 2}', "is no sweep file of version 1"),
    ('{"version": 1, "runs": 3}', "is damaged"),
    ('{"version": 1, "runs": [{"row": "a"}]}', "is damaged"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "x.sweep.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        report(path)


def test_a_sweep_file_stands_alone(sweep, tmp_path):
    path = sweep(CELLS)
    with pytest.raises(ValueError, match="stands alone"):
        make_report(Request([str(path), str(tmp_path)]))
    with pytest.raises(ValueError, match="No such file"):
        report(tmp_path / "none.sweep.json")
