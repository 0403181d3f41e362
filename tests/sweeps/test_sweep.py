"""What a sweep does with runs that end in whatever way. The jobs here are functions; nothing is trained."""

import json
import os
import socket
import time

import pytest

from pruneexp.cli import compose
from pruneexp.config import dense_config
from pruneexp.naming import run_folder
from pruneexp.sweeps.display import duration
from pruneexp.sweeps.entries import Entry, seconds_left
from pruneexp.sweeps.state import Board, Stopped
from pruneexp.sweeps.sweep import Sweep

CONFIG = compose(["dense=none", "output_dir=nowhere"])


class Launcher:
    """Jobs that come to what a script says: label -> one outcome for each attempt."""

    def __init__(self, board, script):
        self.board, self.script, self.batches = board, script, []

    def __call__(self, batch):
        self.batches.append([entry.label for entry in batch])
        for entry in batch:
            if self.board.told().get("stop"):
                continue
            outcome = self.script[entry.label].pop(0)
            about = {"pid": os.getpid(), "host": socket.gethostname(), "start": time.time()}
            if outcome == "dies":
                self.board.report(entry.number, state="running", **about)
                raise RuntimeError("a worker was killed\nexit codes: SIGKILL(-9)")
            if outcome == "vanishes":
                raise RuntimeError("no worker could be started")
            self.board.report(entry.number, **about, **outcome)


DONE = {"state": "done"}
FAILED = {"state": "failed", "error": "the loss is not finite"}
BUSY = {"state": "busy", "error": "process 7 is at it"}


def swept(tmp_path, kind, *, fail_fast=False, **script):
    board = Board.new(tmp_path)
    entries = [Entry(number, label, [], CONFIG) for number, label in enumerate(script)]
    launcher = Launcher(board, script)
    records = []
    sweep = Sweep(
        entries,
        launcher,
        board,
        kind=kind,
        fail_fast=fail_fast,
        record=lambda: records.append([entry.state for entry in entries]),
    )
    try:
        sweep.run(at_once=2, visible=False)
    finally:
        board.remove()
    assert records[-1] == [entry.state for entry in entries]
    assert not list(tmp_path.iterdir())
    return {entry.label: (entry.state, entry.error) for entry in entries}, launcher.batches


@pytest.mark.parametrize("kind", ["here", "processes"])
def test_one_that_fails_does_not_stop_the_others(tmp_path, kind):
    states, batches = swept(tmp_path, kind, a=[DONE], b=[FAILED], c=[DONE])
    assert states == {"a": ("done", None), "b": ("failed", "the loss is not finite"), "c": ("done", None)}
    assert batches == ([["a"], ["b"], ["c"]] if kind == "here" else [["a", "b", "c"]])


def test_fail_fast_begins_no_further_run(tmp_path):
    states, batches = swept(tmp_path, "here", fail_fast=True, a=[DONE], b=[FAILED], c=[DONE])
    assert [state for state, _ in states.values()] == ["done", "failed", "left"]
    assert batches == [["a"], ["b"]]


@pytest.mark.parametrize("kind", ["here", "processes"])
def test_runs_that_another_sweep_has_come_last(tmp_path, kind):
    states, batches = swept(tmp_path, kind, a=[BUSY, DONE], b=[DONE], c=[BUSY, DONE])
    assert set(states.values()) == {("done", None)}
    assert [label for batch in batches for label in batch] == ["a", "b", "c", "a", "c"]


def test_a_run_whose_process_died_is_begun_once_more_with_those_that_died_beside_it(tmp_path):
    states, batches = swept(tmp_path, "processes", a=[DONE], b=["dies", DONE], c=[DONE])
    assert {state for state, _ in states.values()} == {"done"}
    assert batches == [["a", "b", "c"], ["b", "c"]]
    states, _ = swept(tmp_path, "processes", a=["dies", "dies"], b=[DONE])
    assert states["b"] == ("done", None)
    assert states["a"] == ("failed", "its process died, killed or out of memory (exit codes: SIGKILL(-9))")


def test_jobs_that_cannot_be_started_end_the_sweep(tmp_path):
    states, batches = swept(tmp_path, "processes", a=["vanishes"], b=[DONE])
    assert states["a"] == states["b"] == ("failed", "its job could not be started (no worker could be started)")
    assert len(batches) == 1


def test_what_waits_in_the_queue_of_a_cluster_is_not_submitted_again(tmp_path):
    states, batches = swept(tmp_path, "cluster", a=["dies"], b=[DONE])
    assert states["a"][0] == "failed"
    assert states["b"] == ("left", None)
    assert len(batches) == 1


def test_a_signal_ends_the_sweep_with_its_exit_code(tmp_path):
    with pytest.raises(Stopped) as stopped:
        swept(tmp_path, "here", a=[{"state": "stopped", "exit_code": 143}], b=[DONE])
    assert stopped.value.exit_code == 143


def test_what_a_dead_sweep_left_on_the_board_is_removed(tmp_path):
    dead = tmp_path / ".sweeps" / f"{socket.gethostname()}-999999999-1"
    alive = tmp_path / ".sweeps" / f"{socket.gethostname()}-{os.getpid()}-1"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    Board.new(tmp_path)
    assert not dead.exists()
    assert alive.exists()


def test_what_was_there_before_a_run_began_is_no_part_of_its_pace(tmp_path):
    """The dense run of 5 epochs is there by now, trained by another; of 15 of its own, 3 and then 9 are behind it."""
    config = compose(["dense_run.epochs=5", f"output_dir={tmp_path}"])
    entry = Entry(0, "a", [], config, trains_dense=True)

    def write(folder, epoch):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": epoch}) + "\n")

    write(run_folder(dense_config(config)), 5.0)
    assert entry.fraction() == 0.0
    for epoch, fraction in ((3.0, 0.2), (9.0, 0.6)):
        write(entry.folder, epoch)
        assert entry.fraction() == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("took", "running", "waiting", "at_once", "expected"),
    [
        ([], [], 3, 1, None),
        ([], [(5.0, 0.0)], 3, 1, None),
        ([10.0, 30.0], [], 3, 1, 60.0),  # three of 20 s
        ([10.0, 30.0], [], 3, 2, 30.0),
        ([], [(30.0, 0.25)], 1, 1, 210.0),  # 90 s of this one, 120 s of the next
        ([20.0], [(5.0, 0.0)], 0, 1, 15.0),
        ([20.0], [(30.0, 0.5), (10.0, 0.5)], 0, 2, 30.0),  # not before the longest is over
    ],
)
def test_the_estimate_of_the_time_left(took, running, waiting, at_once, expected):
    assert seconds_left(took, running, waiting, at_once) == expected


def test_durations_in_words():
    assert [duration(s) for s in (3.4, 89, 90, 3600, 5400, 90000)] == [
        "3 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
        "1 d 1 h",
    ]
