"""What a process leaves that was killed right after its run had finished goes when the run is found finished."""

import json
import subprocess
import sys

import pytest

from pruneexp import cli, experiment
from pruneexp.cli import compose
from pruneexp.leftovers import CHECKPOINT, PREVIOUS, finished_earlier
from pruneexp.locks import NAME
from pruneexp.naming import run_folder
from pruneexp.sweeps.entries import Entry
from pruneexp.sweeps.job import run_job
from pruneexp.sweeps.state import Board

HOLDER = """
import sys, time
from pathlib import Path
from pruneexp.locks import held
with held(Path(sys.argv[1]), wait=False):
    print(flush=True)
    time.sleep(60)
"""
LEFT = (NAME, CHECKPOINT, PREVIOUS, ".summary.json.123.tmp", "..lock.7.tmp", ".tmp94r3DW")
SUMMARY = {"headline": {"name": "accuracy", "value": 0.5, "split": "test"}, "params": {"prunable": 0}}


@pytest.fixture
def config(tmp_path):
    """The config of a run that is finished, with all that a killed process can leave in its folder."""
    config = compose(["dense=none", f"output_dir={tmp_path}"])
    folder = run_folder(config)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "notes.txt").write_text("mine")
    for name in LEFT:
        (folder / name).write_bytes(b"")
    return config


def names(config) -> set[str]:
    return {path.name for path in run_folder(config).iterdir()}


def by_a_sweep_that_looks(config, tmp_path):
    entry = Entry(0, "one", [], config)
    entry.look()
    return entry.state, entry.headline


def by_a_job_of_a_sweep(config, tmp_path):
    board = Board.new(tmp_path / "boards")
    outcome = run_job(config, [], board=board, number=0, explain=cli.explain)
    (run_folder(config) / "log.txt").unlink()
    return outcome["state"], outcome["headline"]


def by_a_run_that_starts_from_it(config, tmp_path):
    _, summary = experiment.run(config)
    return "done", summary["headline"]


@pytest.mark.parametrize("found", [by_a_sweep_that_looks, by_a_job_of_a_sweep, by_a_run_that_starts_from_it])
def test_a_finished_run_is_left_with_its_own_files_only(found, config, tmp_path):
    assert found(config, tmp_path) == ("done", SUMMARY["headline"])
    assert names(config) == {"summary.json", "notes.txt"}


def test_a_run_that_is_to_start_over_or_is_not_finished_keeps_its_checkpoints(config):
    before = names(config)
    assert finished_earlier({**config, "force": True}) is None
    assert names(config) == before
    (run_folder(config) / "summary.json").unlink()
    assert finished_earlier(config) is None
    assert names(config) == before - {"summary.json"}


def test_nothing_is_taken_from_a_process_that_is_at_it(config):
    command = [sys.executable, "-c", HOLDER, str(run_folder(config))]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "\n"
        before = names(config)
        assert finished_earlier(config) == SUMMARY
        assert names(config) == before
    finally:
        other.kill()
        other.wait()
    assert finished_earlier(config) == SUMMARY
    assert names(config) == {"summary.json", "notes.txt"}


def test_a_process_that_is_not_the_first_of_several_takes_nothing_away(config, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    before = names(config)
    assert finished_earlier(config) == SUMMARY
    assert names(config) == before
