"""A whole run mirrored to W&B, read back from the file that the SDK wrote."""

import pytest

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.runs import Run
from shared.wandb_offline import offline_runs

SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "dense=none", "device=cpu", "method=gmp"]


def test_the_mirror_holds_what_the_folder_holds(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    overrides = [*SMALL, f"output_dir={tmp_path}", "group=sweep-7", "logger.mode=offline"]
    folder, summary = experiment.run(compose(overrides))
    (mirror,) = offline_runs(folder)
    rows = Run(folder, {}, None).rows()
    mirrored = [row for row in mirror.history if "sparsity/prunable" in row]
    assert len(mirrored) == len(rows) == 2
    for row, copy in zip(rows, mirrored, strict=True):
        assert {key: copy[key] for key in row} == pytest.approx(row)
    assert mirror.run.run_group == "sweep-7"
    assert mirror.run.display_name == folder.name
    assert mirror.config["seed"] == summary["seed"]
    assert mirror.exit_codes == [0]
