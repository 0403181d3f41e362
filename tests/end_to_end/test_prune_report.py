"""Real runs, and prune-report as a user starts it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "dense=none", "logger=none", "device=cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def start(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def test_a_sweep_becomes_a_table_plots_and_a_page(tmp_path):
    sweep = ["-m", *SMALL, "method=magnitude,random", "sparsity=0.5,0.75", "seed=1,2"]
    done = start("pruneexp.cli", *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "outputs" / "default"
    (runs / "begun").mkdir()
    (runs / "begun" / "meta.json").write_text("{")
    options = ["--output", "table.md", "--plots", "plots", "--html", "report.html", "--metric", "headline,macs.ratio"]
    done = start("pruneexp.report.command", "outputs", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "foreign (1):" in done.stdout and "outputs/default/begun: has no config.yaml" in done.stdout
    table = (tmp_path / "table.md").read_text()
    assert (
        "| method | 50 %, test accuracy (%) | 50 %, MACs left (%) | 75 %, test accuracy (%) | 75 %, MACs left (%) |"
        in table
    )
    scores = {}
    for summary in runs.glob("*/summary.json"):
        content = json.loads(summary.read_text())
        scores.setdefault((content["method"], content["sparsity"]["target"]), []).append(content["headline"]["value"])
    assert len(scores) == 4 and all(len(values) == 2 for values in scores.values())
    for (method, sparsity), (a, b) in scores.items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {method} |"))
        cell = line.split(" | ")[1 if sparsity == 0.5 else 3]
        assert cell == f"{50 * (a + b):.2f} ± {100 * abs(a - b) / 2**0.5:.2f}"
    with (tmp_path / "table.sources.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["hash"] for row in rows} == {path.parent.name[-8:] for path in runs.glob("*/summary.json")}
    assert all((tmp_path / row["folder"] / "summary.json").is_file() and row["commit"] for row in rows)
    names = {"sparsity", "macs", "bytes", "pareto", "schedule", "layers"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{name}.{end}" for name in names for end in ("png", "svg")
    }
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg ") == 6 and "method=random sparsity=0.75 seed=2" in page


def test_an_encoders_heads_and_units_are_a_plot(tmp_path):
    text = ["model=bert_tiny", "dataset=text_embedded", "method=magnitude", "pattern=transformer", "sparsity=0.5"]
    done = start("pruneexp.cli", *SMALL, *text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = start("pruneexp.report.command", "outputs", "--plots", "plots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plots" / "encoder_magnitude__50.png").is_file()
