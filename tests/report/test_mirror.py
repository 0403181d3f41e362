"""A report in W&B, offline, read back from the file that the SDK wrote."""

import json

import pytest
import wandb

from pruneexp.report.build import Request, make_report
from pruneexp.report.charts import charts
from pruneexp.report.command import main
from pruneexp.report.mirror import MirrorError, mirror
from shared.wandb_offline import offline_runs

pytestmark = pytest.mark.usefixtures("no_wandb_account")


def tables_of(folder, run):
    """Name -> (columns, rows) of the tables that a run has logged."""
    (history,) = run.history
    names = [key.removesuffix("/_type") for key, value in history.items() if value == "table-file"]
    (media,) = folder.glob("wandb/offline-run-*/files")
    found = {}
    for name in names:
        content = json.loads((media / history[f"{name}/path"]).read_text())
        found[name] = (content["columns"], content["data"])
    return found


def test_tables_and_charts_stand_in_the_group_of_the_sweep(make_run, tmp_path):
    for seed, score in ((1, 0.25), (2, 0.75)):
        make_run(score, seed=seed)
    main(
        [
            str(tmp_path / "runs"),
            "--no-references",
            "--wandb",
            "--wandb-mode",
            "offline",
            "--output",
            str(tmp_path / "out" / "t.md"),
        ]
    )
    (run,) = offline_runs(tmp_path / "out")
    assert (run.run.run_group, run.run.job_type, run.run.project) == ("sweep-1", "report", "pruneexp")
    assert run.config == {"runs": ["00000001", "00000002"]} and run.exit_codes == [0]
    tables = tables_of(tmp_path / "out", run)
    assert tables["table"] == (["method", "test accuracy (%)"], [["pdp", "50.00 ± 35.36"]])
    columns, (cell,) = tables["cells"]
    assert dict(zip(columns, cell, strict=True))["mean"] == 0.5
    columns, rows = tables["runs"]
    assert [dict(zip(columns, row, strict=True))["hash"] for row in rows] == ["00000001", "00000002"]
    charts = {key for key, value in run.history[0].items() if key.endswith("/_type") and value == "image-file"}
    assert charts == {f"charts/{name}/_type" for name in ("sparsity", "macs", "bytes", "schedule", "layers")}


def test_values_of_several_kinds_go_into_one_column(make_run, tmp_path):
    make_run(0.5)
    make_run(0.75, method="str", found=0.85)
    report = make_report(Request([str(tmp_path / "runs")], ["method"], ["sparsity"], bundled=False))
    place = mirror(report, charts(report), project="mine", mode="offline", folder=tmp_path / "out")
    assert place.startswith(f"W&B, offline: wandb sync {tmp_path / 'out'}")
    (run,) = offline_runs(tmp_path / "out")
    columns, rows = tables_of(tmp_path / "out", run)["cells"]
    assert {row[columns.index("sparsity")] for row in rows} == {0.9, "found"} and run.run.project == "mine"


def test_wandb_switched_off_and_wandb_broken(make_run, tmp_path, monkeypatch, capsys):
    make_run()
    report = make_report(Request([str(tmp_path / "runs")], bundled=False))
    monkeypatch.setattr(wandb.setup().settings, "mode", "disabled")
    assert (
        mirror(report, charts(report), project=None, mode="auto", folder=tmp_path) == "W&B is switched off (WANDB_MODE)"
    )
    monkeypatch.setattr(
        "pruneexp.report.mirror.open_run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no\nroom"))
    )
    with pytest.raises(MirrorError, match=r"^W&B: no$"):
        mirror(report, charts(report), project=None, mode="offline", folder=tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "runs"), "--wandb"])
    assert stop.value.code == 1 and capsys.readouterr().err == "prune-report: W&B: no\n"
