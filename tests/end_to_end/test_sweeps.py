"""Sweeps, as a user starts them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
PRUNE_RUN = [sys.executable, "-m", "pruneexp.cli", "-m"]
SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "logger=none", "device=cpu"]
PARALLEL = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen:
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*PRUNE_RUN, *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    process = start(*arguments, cwd=cwd, **environment)
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def summaries(folder: Path) -> dict[str, dict]:
    """The summaries of all runs, without what may differ between machines and times."""
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/*/*/summary.json")}
    for summary in found.values():
        for key in ("wall_seconds", "resumed_from", "places"):
            summary.pop(key, None)
    return found


def sweep_file(folder: Path) -> dict:
    (path,) = folder.glob("outputs/**/*.sweep.json")
    return json.loads(path.read_text())


def times_trained(folder: Path) -> dict[str, int]:
    """Method -> how often a run's first evaluation after an epoch stands in the logs."""
    lines = [line.split() for log in folder.glob("outputs/*/*/log.txt") for line in log.read_text().splitlines()]
    firsts = [words[0] for words in lines if len(words) > 2 and words[1] == "3/6"]
    return {method: firsts.count(method) for method in firsts}


def test_a_sweep_runs_every_job_though_one_fails_and_then_only_what_is_missing(tmp_path):
    grid = [*SMALL, "dense=none", "method=magnitude,random"]
    first = sweep(*grid, "optimizer.learning_rate=0.01,1e30", cwd=tmp_path)
    assert first.returncode == 1
    failures = [line for line in first.stderr.splitlines() if "the loss is not finite" in line]
    assert [line.split(":")[1] for line in failures] == [
        " method=magnitude, optimizer.learning_rate=1e+30",
        " method=random, optimizer.learning_rate=1e+30",
    ]
    assert first.stderr.splitlines()[-1] == "prune-run: 2 of 4 runs failed; the same command runs what is missing"
    assert "2 done · 0 running · 2 failed · 0 left" in first.stdout
    assert "Traceback" not in first.stderr
    log = tmp_path / failures[0].partition("; log: ")[2]
    assert "the loss is not finite" in log.read_text()
    states = [(run["row"].split(", ")[0], run["state"], bool(run["error"])) for run in sweep_file(tmp_path)["runs"]]
    assert states == [
        ("method=magnitude", "done", False),
        ("method=magnitude", "failed", True),
        ("method=random", "done", False),
        ("method=random", "failed", True),
    ]
    assert sorted(name.split("-")[0] for name in summaries(tmp_path)) == ["magnitude", "random"]
    assert not (tmp_path / "outputs" / ".sweeps").exists()
    again = sweep(*grid, "optimizer.learning_rate=0.01", cwd=tmp_path)
    assert again.returncode == 0
    assert "2 runs, 2 finished earlier, 0 to do" in again.stdout
    assert times_trained(tmp_path) == {"magnitude": 1, "random": 1}


def test_fail_fast_and_invalid_cells(tmp_path):
    grid = [*SMALL, "dense=none", "method=str,magnitude", "sparsity=0.5,0.8"]  # str takes no sparsity
    done = sweep(*grid, "--fail-fast", cwd=tmp_path)
    assert done.returncode == 2
    assert "0 done · 0 running · 2 failed · 2 left" in done.stdout
    assert "method=str, sparsity=0.5: sparsity=0.5: method=str has no target" in done.stderr
    every = sweep(*grid[:-2], "method=str", "sparsity=0.5,0.6", cwd=tmp_path / "all")
    assert every.returncode == 2
    assert every.stderr.splitlines()[-1] == "prune-run: 2 of 2 runs failed on bad input"
    typo = sweep("colour=red", "seed=1,2", cwd=tmp_path / "typo")
    assert (typo.returncode, typo.stderr.count("\n")) == (2, 1)
    assert not list((tmp_path / "typo").iterdir())


def test_the_exit_code_is_2_only_where_all_that_failed_is_bad_input(tmp_path):
    grid = [*SMALL, "dense=none", "method=magnitude", "sparsity=0.5,1.5"]
    done = sweep(*grid, cwd=tmp_path)
    assert done.returncode == 2
    assert [run["state"] for run in sweep_file(tmp_path)["runs"]] == ["done", "failed"]
    assert done.stderr.splitlines()[-1] == "prune-run: 1 of 2 runs failed on bad input"
    diverging = sweep(*grid, "optimizer.learning_rate=1e30", cwd=tmp_path / "diverging")
    assert diverging.returncode == 1
    assert diverging.stderr.splitlines()[-1] == "prune-run: 2 of 2 runs failed; the same command runs what is missing"


def test_parallel_jobs_train_the_dense_run_once_and_give_the_weights_of_single_ones(tmp_path):
    grid = [*SMALL, "method=magnitude,random", "sparsity=0.5"]
    parallel = sweep(*grid, *PARALLEL, cwd=tmp_path / "parallel")
    assert parallel.returncode == 0, parallel.stderr
    assert "2 runs, 2 to do, 2 at a time" in parallel.stdout
    assert times_trained(tmp_path / "parallel") == {"dense": 1, "magnitude": 1, "random": 1}
    assert sweep(*grid, cwd=tmp_path / "single").returncode == 0
    assert summaries(tmp_path / "parallel") == summaries(tmp_path / "single")
    for path in (tmp_path / "single").glob("outputs/*/*/model.safetensors"):
        other = tmp_path / "parallel" / path.relative_to(tmp_path / "single")
        assert other.read_bytes() == path.read_bytes()
    meta = [json.loads(path.read_text()) for path in (tmp_path / "parallel").glob("outputs/*/random*/meta.json")]
    assert meta[0]["command"][0] == "prune-run"
    assert "method=random" in meta[0]["command"]


def test_parallel_jobs_share_the_cores(tmp_path):
    from joblib import cpu_count

    environment = {key: value for key, value in ENVIRONMENT.items() if key != "OMP_NUM_THREADS"}
    command = [*PRUNE_RUN, *SMALL, "dense=none", "method=magnitude,random", *PARALLEL]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    threads = [json.loads(path.read_text())["threads"] for path in tmp_path.glob("outputs/*/*/meta.json")]
    assert threads == [max(1, cpu_count() // 2)] * 2


def test_two_sweeps_at_once_train_each_run_once(tmp_path):
    grid = [*SMALL, "method=magnitude,random,pdp", "sparsity=0.5"]
    both = [start(*grid, cwd=tmp_path), start(*grid, *PARALLEL, cwd=tmp_path)]
    for process in both:
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "3 done · 0 running · 0 failed · 0 left" in output
    assert times_trained(tmp_path) == {"dense": 1, "magnitude": 1, "random": 1, "pdp": 1}
    assert {run["state"] for run in sweep_file(tmp_path)["runs"]} == {"done"}
    assert not list(tmp_path.glob("outputs/**/.*"))


def test_a_sweep_that_is_killed_at_random_and_restarted_ends_with_the_summaries_of_an_undisturbed_one(tmp_path):
    grid = ["dataset.max_examples=200", "batch_size=20", "epochs=6", *SMALL[3:], "training.checkpoint_minutes=0.001"]
    grid += ["dense=none", "method=magnitude,random", "seed=1,2"]
    moments = random.Random(5)
    for _ in range(2):
        process = start(*grid, cwd=tmp_path / "killed")
        before = len(list(tmp_path.glob("killed/outputs/*/*/metrics.jsonl")))
        deadline = time.monotonic() + 300
        while len(list(tmp_path.glob("killed/outputs/*/*/metrics.jsonl"))) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert sweep(*grid, cwd=tmp_path / "killed").returncode == 0
    assert sweep(*grid, cwd=tmp_path / "undisturbed").returncode == 0
    assert len(summaries(tmp_path / "undisturbed")) == 4
    assert summaries(tmp_path / "killed") == summaries(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("launcher", "number"), [([], signal.SIGINT), (PARALLEL, signal.SIGINT), (PARALLEL, signal.SIGTERM)], ids=str
)
def test_a_sweep_that_is_stopped_saves_what_runs_and_goes_on(number, launcher, tmp_path):
    grid = [*SMALL[:2], "epochs=40", *SMALL[3:], "dense=none", "method=magnitude,random", *launcher]
    process = subprocess.Popen(
        [*PRUNE_RUN, *grid], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    wanted = 2 if launcher else 1
    while len(list(tmp_path.glob("outputs/*/*/metrics.jsonl"))) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    if number == signal.SIGINT:  # as a terminal: to all of the group
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert errors.strip() == "prune-run: stopped; the same command goes on"
    assert len(list(tmp_path.glob("outputs/*/*/checkpoint.pt"))) == wanted
    assert not summaries(tmp_path)
    assert {run["state"] for run in sweep_file(tmp_path)["runs"]} == {"left"}
    again = sweep(*grid, "--fail-fast", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(summaries(tmp_path)) == 2


def test_a_worker_that_is_killed_is_begun_again_and_resumes(tmp_path):
    grid = [*SMALL[:2], "epochs=40", *SMALL[3:], "training.checkpoint_minutes=0.001", "dense=none"]
    process = start(*grid, "method=magnitude,random", *PARALLEL, cwd=tmp_path)
    victim = None
    deadline = time.monotonic() + 300
    while victim is None and time.monotonic() < deadline:
        time.sleep(0.05)
        for path in tmp_path.glob("outputs/.sweeps/*/[0-9]*.json"):
            said = json.loads(path.read_text())
            if list(tmp_path.glob("outputs/*/*/checkpoint.pt")) and said["pid"] != process.pid:
                victim = said["pid"]
    os.kill(victim, signal.SIGKILL)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "2 done · 0 running · 0 failed · 0 left" in output


def test_a_search_is_resumable_and_makes_a_sweep_file_of_the_best(tmp_path):
    pytest.importorskip("optuna")
    options = [*SMALL, "dense=none", "method=pdp", "search=optuna", "search.trials=2", "seed=1,2"]
    options.append("search.space.method.tau=log(0.001, 0.1)")
    first = sweep(*options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert len(summaries(tmp_path)) == 4
    (results,) = tmp_path.glob("outputs/*/*.search/results.json")
    (study,) = json.loads(results.read_text())["studies"]
    assert [run["folder"] for run in sweep_file(tmp_path)["runs"]] == [
        Path(f).name for f in study["trials"][0]["folders"]
    ]
    again = sweep(*options, cwd=tmp_path)
    assert again.returncode == 0
    assert "2 runs, 2 finished earlier, 0 to do" in again.stdout
    assert len(summaries(tmp_path)) == 4


def test_a_table_of_a_minute_runs_and_its_sweep_file_has_its_cells(tmp_path):
    table = ["table=pdp_cifar10", "size=smoke", "dataset.max_examples=120", "dense=none", "logger=none", "device=cpu"]
    done = sweep(*table, "sparsity=0.8", "method=pdp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = sweep_file(tmp_path)
    assert (written["table"], written["size"], written["rows"], written["columns"]) == (
        "pdp_cifar10", "smoke", ["PDP"], ["80 %"],
    )  # fmt: skip
    (run,) = written["runs"]
    assert (tmp_path / "outputs" / "cifar10_smoke" / run["folder"] / "summary.json").is_file()
    assert run["seed"] == 1
    alone = subprocess.run(
        [*PRUNE_RUN[:-1], "table=pdp_cifar10"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (alone.returncode, alone.stderr) == (2, "prune-run: table=pdp_cifar10: is for sweeps; put -m before it\n")
