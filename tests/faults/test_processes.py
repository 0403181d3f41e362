"""Two processes of one run (gloo): one is killed, the other ends and says so; the run goes on, on one process too."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

RUN = [
    *("model=bert_tiny", "model.hidden_size=16", "model.num_heads=2", "model.ffn_size=32", "model.vocab_size=300"),
    *("dataset=text_embedded", "dataset.max_examples=120", "dataset.max_length=16", "batch_size=8", "epochs=60"),
    *("dense=none", "logger=none", "device=cpu", "method=gmp", "training.evaluate_every=2"),
]
PATIENCE = 60  # seconds that the one that is left may take


def start(folder, rank: int, port: int) -> subprocess.Popen:
    """One of two processes, as a cluster starts them; there is no torchrun to end the one that is left."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **place, "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "pruneexp.cli", *RUN]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def wait_for_checkpoint(folder, processes) -> None:
    deadline = time.monotonic() + 240
    while not list(folder.glob("outputs/default/*/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("killed", [0, 1])
def test_the_process_that_is_left_ends_with_a_message_and_the_run_goes_on_alone(killed, tmp_path):
    port = free_port()
    processes = [start(tmp_path, rank, port) for rank in range(2)]
    try:
        wait_for_checkpoint(tmp_path, processes)
        processes[killed].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, errors = processes[1 - killed].communicate(timeout=PATIENCE)
        took = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.wait()
    lines = [line for line in errors.decode().splitlines() if line.startswith("prune-run: ")]
    assert processes[1 - killed].returncode == 1, errors.decode()
    assert len(lines) == 1
    assert "another process of this run has ended, and this one cannot go on alone; the same command" in lines[0]
    assert "Traceback" not in errors.decode()
    assert took < PATIENCE
    alone = subprocess.run(
        [sys.executable, "-m", "pruneexp.cli", *RUN],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    assert "after cpu, 2 processes" in " ".join(alone.stdout.split())
    (path,) = tmp_path.glob("outputs/default/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["resumed_from"] > 0
    assert [place["processes"] for place in summary["places"]] == [2, 1]
    assert summary["places"][1]["step"] == summary["resumed_from"]
    assert sorted(p.name for p in path.parent.glob("*checkpoint*")) == []
