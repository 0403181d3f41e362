"""GPUs shared out among processes. No GPU is needed: the places are lock files."""

import os
import subprocess
import sys

import pytest

from pruneexp.config import ConfigError
from pruneexp.sweeps import launchers
from pruneexp.sweeps.gpus import visible_gpus

WORKER = """
import os, sys
from pruneexp.sweeps.gpus import take_place
place = take_place(["0", "3"], int(sys.argv[1]), on_wait=lambda: print("waits", flush=True))
assert os.environ["CUDA_VISIBLE_DEVICES"] == place == take_place(["0", "3"], 1)
print(place, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def workers(tmp_path):
    started = []

    def start(per_gpu):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(per_gpu)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()


def test_every_process_gets_a_gpu_of_its_own_and_one_too_many_waits_for_the_end_of_another(workers):
    first, second, third = workers(1), workers(1), None
    assert {first.stdout.readline(), second.stdout.readline()} == {"0\n", "3\n"}
    third = workers(1)
    assert third.stdout.readline() == "waits\n"
    first.kill()
    assert third.stdout.readline() in ("0\n", "3\n")


def test_gpus_fill_up_evenly_with_several_processes_each(workers):
    places = [workers(2).stdout.readline().strip() for _ in range(4)]
    assert sorted(places[:2]) == ["0", "3"]
    assert sorted(places) == ["0", "0", "3", "3"]


def test_the_users_choice_of_gpus_is_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f")
    assert visible_gpus(2) == ["2", "GPU-5f"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]
    assert visible_gpus(0) == []


class JoblibLauncher:
    """Stands for Hydra's."""

    def __init__(self, n_jobs):
        self.joblib = {"n_jobs": n_jobs}


@pytest.mark.parametrize(
    ("gpus", "n_jobs", "per_gpu", "device", "expected"),
    [
        (["0", "1"], -1, 1, "auto", 1),  # as many as there are cores: joblib counts one here
        (["0", "1"], 2, 1, "cuda", 2),
        (["0", "1"], 4, 2, "cuda", 4),
        ([], 3, 1, "auto", 3),
        (["0"], 3, 1, "cpu", 3),
    ],
)
def test_how_many_jobs_have_a_place(monkeypatch, gpus, n_jobs, per_gpu, device, expected):
    monkeypatch.setattr(launchers, "_gpus", lambda: gpus)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert launchers.places(JoblibLauncher(n_jobs), device, per_gpu) == expected


def test_more_jobs_than_the_gpus_hold_are_refused(monkeypatch):
    monkeypatch.setattr(launchers, "_gpus", lambda: ["0"])
    with pytest.raises(ConfigError) as error:
        launchers.places(JoblibLauncher(3), "auto", 2)
    assert str(error.value) == (
        "hydra.launcher.n_jobs=3: 1 GPUs with sweep.jobs_per_gpu=2 hold 2 jobs; lower it, or raise sweep.jobs_per_gpu"
    )
    with pytest.raises(ConfigError, match=r"sweep\.jobs_per_gpu=0: must be at least 1"):
        launchers.places(JoblibLauncher(1), "auto", 0)
