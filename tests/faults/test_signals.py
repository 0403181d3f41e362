"""SIGTERM and SIGINT in the middle of every kind of run: a checkpoint at the step's end, 128 + n, the same result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fault_harness as harness
from fault_comparison import content
from pruneexp import cli
from pruneexp.trainer import Trainer

KINDS = [kind for kind in harness.KINDS if kind != "export"]


def prune_run(folder, monkeypatch, kind) -> int:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["prune-run", *harness.KINDS[kind]])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_in_mid_step_leaves_a_run_that_the_same_command_finishes(kind, tmp_path, monkeypatch, capsys):
    """The signals come at the first and at the fourth step of one command after the other, as a cluster requeues."""
    assert prune_run(tmp_path / "steady", monkeypatch, kind) == 0
    backward, signals = Trainer._backward, {1: signal.SIGTERM, 4: signal.SIGINT}

    def interrupted(self, batch):
        if self.step in signals:
            os.kill(os.getpid(), signals.pop(self.step))
        return backward(self, batch)

    codes = []
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", interrupted)
        while signals:
            codes.append(prune_run(tmp_path / "stopped", patch, kind))
    assert codes == [143, 130]
    errors = capsys.readouterr().err
    assert "stopped by SIGTERM; the same command resumes outputs" in errors
    assert "stopped by SIGINT; the same command resumes outputs" in errors
    assert prune_run(tmp_path / "stopped", monkeypatch, kind) == 0
    assert content(tmp_path / "stopped") == content(tmp_path / "steady")


@pytest.mark.slow
def test_killed_at_random_moments_runs_and_exports_come_out_the_same(tmp_path):
    """A few moments; `python scripts/fault_harness.py` tries fifty of each kind."""
    command = [sys.executable, harness.__file__, "--moments", "4", "--kinds", "vision-soft,export", "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [("vision-soft", "4", "0"), ("export", "4", "0")]
