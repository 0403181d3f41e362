"""Locks on folders, between processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pruneexp.locks import Busy, held

HOLDER = """
import sys, time
from pathlib import Path
from pruneexp.locks import held
with held(Path(sys.argv[1]), wait=False):
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that has the lock on tmp_path / "run"."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_says_who_has_it(tmp_path, other):
    with pytest.raises(Busy) as busy, held(tmp_path / "run", wait=False):
        pass
    assert f"process {other.pid}, since 20" in str(busy.value)
    assert busy.value.holder["host"] == socket.gethostname()
    assert busy.value.holder["command"][:2] == ["-c", str(tmp_path / "run")]


def test_the_lock_of_a_killed_process_is_free(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / ".lock").is_file()
    with held(tmp_path / "run", wait=False):
        assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == os.getpid()


def test_waiting_ends_when_the_other_process_does(tmp_path, other):
    told = []

    def on_wait(busy):
        told.append(busy.holder["pid"])
        other.kill()

    with held(tmp_path / "run", wait=True, on_wait=on_wait):
        assert told == [other.pid]
        assert other.wait() == -signal.SIGKILL


def test_nothing_is_left_of_an_empty_folder_and_all_of_one_with_files(tmp_path):
    with held(tmp_path / "outputs" / "empty", wait=False):
        pass
    assert not list(tmp_path.iterdir())
    with held(tmp_path / "outputs" / "run", wait=False):
        (tmp_path / "outputs" / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "outputs").rglob("*")] == ["run", "file"]
    with held(tmp_path / "outputs", wait=False):  # there before, so it stays
        pass
    assert (tmp_path / "outputs").is_dir()


def test_a_context_within_another_on_the_same_folder_does_nothing(tmp_path):
    with held(tmp_path, wait=False):
        with held(tmp_path / "x" / "..", wait=False), held(tmp_path, wait=False):
            pass
        assert (tmp_path / ".lock").is_file()
    assert not list(tmp_path.iterdir())


def test_of_several_processes_that_train_together_only_the_main_one_takes_it_and_it_does_not_wait(
    tmp_path, other, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with held(tmp_path / "run", wait=True):
        pass
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Busy), held(tmp_path / "run", wait=True):
        pass


RACER = """
import sys, time, random
from pathlib import Path
from pruneexp.locks import held
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
for turn in range(40):
    with held(folder, wait=True):
        with log.open("a") as file:
            file.write("in ")
        time.sleep(random.random() / 500)
        with log.open("a") as file:
            file.write("out ")
"""


def test_no_two_processes_are_ever_inside_at_once(tmp_path):
    """The folder comes and goes with its lock file, which is the case where a lock on a removed file could be taken."""
    code = RACER.replace("import sys", "import pruneexp.locks\npruneexp.locks.POLL = 0.001\nimport sys")
    command = [sys.executable, "-c", code, str(tmp_path / "deep" / "run"), str(tmp_path / "log")]
    start = time.monotonic()
    racers = [subprocess.Popen(command) for _ in range(4)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0, 0], time.monotonic() - start
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 160
