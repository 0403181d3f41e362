"""prune-report as it is typed: what it prints and writes, and one line with the remedy where it cannot."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from pruneexp.report.command import main


@pytest.fixture
def prune_report(tmp_path, capsys):
    """Runs the command; its exit code, and what it printed on both streams."""

    def run(*arguments, place="runs"):
        code = 0
        try:
            main([str(tmp_path / place), "--no-references", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def runs(make_run):
    for seed, score in ((1, 0.25), (2, 0.75)):
        make_run(score, seed=seed)


def test_a_table_and_what_was_left_out(runs, make_run, prune_report, tmp_path):
    make_run(seed=3, finished=False)
    (make_run(seed=4) / "summary.json").write_text("{")
    code, out, err = prune_report()
    assert code == 0 and not err
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
    assert lines[0] == "resnet20 on digits: test accuracy (%)" and "pdp 50.00 ± 35.36" in lines
    assert "unfinished (1):" in lines and "broken (1):" in lines
    assert (
        f"{tmp_path / 'runs' / 'pdp-resnet20-digits-seed3-00000003'}: running or interrupted at step 10 of 20" in lines
    )


def test_other_formats_leave_stdout_to_the_table(runs, make_run, prune_report):
    make_run(seed=3, finished=False)
    for form, start in (
        ("markdown", "**resnet20"),
        ("latex", "\\begin{table}"),
        ("csv", "method,metric"),
        ("json", "["),
    ):
        code, out, err = prune_report("--format", form)
        assert code == 0 and out.startswith(start) and "unfinished (1)" in err and "unfinished" not in out
    assert json.loads(prune_report("--format", "json")[1])[0]["cells"][0]["mean"] == 0.5


def test_files_by_their_endings_with_their_sources(runs, prune_report, tmp_path):
    for ending, start in (
        (".md", "**resnet20"),
        (".tex", "\\begin"),
        (".csv", "method,"),
        (".json", "["),
        (".txt", "resnet20"),
    ):
        code, out, _ = prune_report("--output", tmp_path / "out" / f"table{ending}")
        assert code == 0 and (tmp_path / "out" / f"table{ending}").read_text().startswith(start)
        assert out.splitlines() == [
            f"wrote {tmp_path / 'out' / f'table{ending}'}",
            f"wrote {tmp_path / 'out' / 'table.sources.csv'}",
        ]
    with (tmp_path / "out" / "table.sources.csv").open(newline="") as file:
        assert [row["hash"] for row in csv.DictReader(file)] == ["00000001", "00000002"]


def test_sources_plots_and_page_are_written_on_request(runs, prune_report, tmp_path):
    code, out, _ = prune_report(
        "--sources", tmp_path / "s.json", "--plots", tmp_path / "plots", "--html", tmp_path / "r.html"
    )
    assert code == 0 and (tmp_path / "r.html").read_text().endswith("</html>\n")
    assert {run["hash"] for run in json.loads((tmp_path / "s.json").read_text())[0]["runs"]} == {"00000001", "00000002"}
    assert {line.removeprefix("wrote ") for line in out.splitlines() if line.startswith("wrote")} == {
        *map(str, (tmp_path / "plots").iterdir()),
        str(tmp_path / "s.json"),
        str(tmp_path / "r.html"),
    }
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "colour"], "axis colour: no run has such an option"),
        (["--metric", "loss"], "--metric loss: no run has it; want one of test.loss"),
        (["--filter", "method=gmp"], "--filter method=gmp: leaves no run; method is pdp"),
        (["--references", "nowhere.yaml"], "--references nowhere.yaml: No such file or directory"),
        (
            ["--rows", "method", "--columns", "sparsity", "--filter", "seed=1,2,7"],
            "differ in more than their seed: epochs=4 and 8",
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(runs, make_run, prune_report, arguments, message):
    make_run(seed=7, epochs=8)
    code, out, err = prune_report(*arguments)
    assert code == 2 and not out
    assert err.startswith("prune-report: ") and message in err and err.count("\n") == 1


def test_places_without_a_finished_run(make_run, prune_report, tmp_path):
    code, out, err = prune_report(place="nowhere")
    assert code == 2 and not out
    assert err.startswith(f"prune-report: {tmp_path / 'nowhere'}: no such folder; give a run's folder")
    make_run(finished=False)
    code, out, err = prune_report()
    assert code == 2 and "unfinished (1)" in out and err.endswith("no run there has finished\n")


def test_a_file_that_cannot_be_written_is_named(runs, prune_report, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = prune_report("--output", tmp_path / "file" / "t.md")
    assert code == 1 and err.startswith("prune-report: ") and "file" in err and err.count("\n") == 1


def test_what_a_terminal_would_obey_is_not_printed(make_run, prune_report):
    (make_run(seed=2) / "config.yaml").write_text("\x1b[2J: [")
    make_run(seed=1, method__note="x")
    out = prune_report()[1]
    assert "\x1b" not in out and "broken (1)" in out


def test_neither_help_nor_a_table_imports_torch(runs, tmp_path):
    code = (
        "import sys; from pruneexp.report.command import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and ('--help' not in sys.argv or 'yaml' not in sys.modules)"
    )
    for arguments in (["--help"], [str(tmp_path / "runs"), "--html", str(tmp_path / "r.html")]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


ODD = [
    ("summary.json", ("headline", "value"), 10**400),
    ("summary.json", ("macs", "effective"), [1]),
    ("summary.json", ("macs",), "many"),
    ("summary.json", ("dense",), 3),
    ("config.yaml", ("dense",), None),
    ("config.yaml", ("choices", "method"), ["pdp"]),
    ("config.yaml", ("choices", "model"), None),
    ("config.yaml", ("method", "sparsity"), 10**400),
    ("config.yaml", ("method", "sparsity"), {"a": 1}),
    ("config.yaml", ("method", "pattern"), "unstructured"),
    ("config.yaml", ("model", "checkpoint"), [1, 2]),
    ("config.yaml", ("epochs",), "\x00\x1b[2J"),
    ("meta.json", ("command",), {"x": None}),
    ("meta.json", ("commit",), 7),
]


@pytest.mark.parametrize(("file", "path", "value"), ODD, ids=str)
def test_values_that_no_run_has_are_a_table_or_one_line(make_run, prune_report, file, path, value):
    """Found by changing values at random; main may stop with exit code 2, and raises nothing."""
    make_run(0.25, seed=1)
    run = make_run(0.75, seed=2, sparsity=0.8)
    content = yaml.safe_load((run / file).read_text())
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (run / file).write_text(yaml.safe_dump(content) if file == "config.yaml" else json.dumps(content))
    code, out, err = prune_report("--metric", "headline,macs.ratio,drop")
    assert code in (0, 2) and (code == 0) == bool(out) and err.count("\n") == (code == 2)
