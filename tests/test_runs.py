import json

import pytest
import torch

from pruneexp.loggers.base import Logger
from pruneexp.runs import Run
from pruneexp.whole_files import replacing, write_json


def new_run(folder):
    return Run(folder, {"experiment_name": "e", "group": None, "seed": 1}, Logger())


def test_replacing_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_metrics_of_steps_to_be_done_again_are_cut(tmp_path):
    run = new_run(tmp_path / "run")
    run.start(device="cpu", resumed_from=None)
    for step in (3, 6, 9):
        run.log({"step": step})
    run.start(device="cpu", resumed_from=6)
    assert [row["step"] for row in run.rows()] == [3, 6]
    run.start(device="cpu", resumed_from=None)
    assert run.rows() == []


def test_a_run_is_done_once_its_summary_is_there(tmp_path):
    run = new_run(tmp_path / "run")
    run.start(device="cpu", resumed_from=None)
    run.save({"step": 3, "weights": torch.ones(2)})
    assert not run.done
    assert run.restore(torch.device("cpu"))["step"] == 3
    run.finish({"value": 1})
    assert run.done
    assert run.summary()["value"] == 1
    assert run.restore(torch.device("cpu")) is None


def test_force_clears_results_and_leaves_other_files(tmp_path):
    run = new_run(tmp_path)
    write_json(tmp_path / "summary.json", {})
    (tmp_path / "notes.txt").write_text("mine")
    run.clear()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_meta_says_how_the_run_came_to_be(tmp_path):
    run = new_run(tmp_path)
    run.start(device="cpu", resumed_from=4)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["resumed_from"] == 4
    assert {"versions", "commit", "command", "start", "threads", "device"} <= set(meta)
    assert {"torch", "python", "pruneexp"} <= set(meta["versions"])


def test_other_processes_write_nothing(tmp_path):
    run = Run(tmp_path / "run", {}, Logger(), is_main=False)
    run.start(device="cpu", resumed_from=None)
    run.log({"step": 1})
    run.save({"step": 1})
    assert not (tmp_path / "run").exists()
