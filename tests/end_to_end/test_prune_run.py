"""The installed commands, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pruneexp.cli import CONFIGS

pytestmark = pytest.mark.slow

SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "dense=none", "logger=none", "device=cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
PRUNE_RUN = [sys.executable, "-m", "pruneexp.cli"]


def prune_run(*arguments: str, cwd: Path, command=PRUNE_RUN) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def only_run(folder: Path) -> Path:
    (run,) = (path.parent for path in folder.glob("outputs/default/*/config.yaml"))
    return run


def test_run_and_run_again(tmp_path):
    first = prune_run(*SMALL, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    run = only_run(tmp_path)
    for words in (
        "test accuracy",
        "sparsity, prunable",
        "90.00 %",
        "non-zero parameters",
        f"outputs/default/{run.name}",
    ):
        assert words in first.stdout
    before = (run / "model.safetensors").stat().st_mtime_ns
    again = prune_run(*SMALL, cwd=tmp_path)
    assert again.returncode == 0
    assert "finished earlier" in again.stdout
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert prune_run(*SMALL, "force=true", cwd=tmp_path).returncode == 0
    assert (run / "model.safetensors").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str
)
def test_a_stopped_run_resumes_to_the_same_weights(number, exit_code, tmp_path):
    longer = [*SMALL[:2], "epochs=30", *SMALL[3:]]
    process = subprocess.Popen(
        [*PRUNE_RUN, *longer], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/default/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    if number != signal.SIGKILL:
        assert "the same command resumes" in errors
    run = only_run(tmp_path)
    assert not (run / "summary.json").exists()
    resumed = prune_run(*longer, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "summary.json").read_text())["resumed_from"] > 0
    assert not list(run.glob(".*.tmp"))
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    assert prune_run(*longer, cwd=undisturbed).returncode == 0
    for name in ("model.safetensors", "masks.safetensors"):
        assert (only_run(undisturbed) / name).read_bytes() == (run / name).read_bytes()


def test_two_jobs_of_a_sweep_do_not_touch_each_other(tmp_path):
    """Either order, or alone: the same weights."""
    weights = {}
    for name, methods in (("forth", "magnitude,pdp"), ("back", "pdp,magnitude")):
        folder = tmp_path / name
        folder.mkdir()
        assert prune_run("-m", *SMALL, f"method={methods}", cwd=folder).returncode == 0
        weights[name] = {
            path.parent.name: path.read_bytes() for path in folder.glob("outputs/default/*/model.safetensors")
        }
    assert len(weights["forth"]) == 2
    assert weights["forth"] == weights["back"]


TEXT = ["model=bert_tiny", "model.dropout=0.0", "dataset=text_embedded", "optimizer=sgd"]
"""Text without dropout has no batch statistics, so the same global batch must give the same model."""


def check_that_two_processes_agree_with_one(folder: Path, *options: str) -> list[str]:
    """Runs the same command on one process and on two; the methods that were run."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "pruneexp.cli"]
    for name, command in (("one", PRUNE_RUN), ("two", torchrun)):
        (folder / name).mkdir()
        done = prune_run(*SMALL, *TEXT, *options, cwd=folder / name, command=command)
        assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (folder / "one").glob("outputs/default/*/summary.json"))
    for run in runs:
        other = folder / "two" / "outputs" / "default" / run.name
        files = {
            file for file in run.glob("*.safetensors") if "masks" not in file.name
        }  # heads of auxiliary tasks, too
        for file in files:
            one, two = load_file(file), load_file(other / file.name)
            difference = max(float((tensor - two[name]).abs().max()) for name, tensor in one.items())
            assert difference < 1e-5, (run.name, file.name)
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, other)]
        learned = summaries[0]["sparsity"]["target"] is None  # rounding can move single weights over a threshold
        assert summaries[0]["sparsity"] == pytest.approx(summaries[1]["sparsity"], abs=1e-4 if learned else 0)
        assert summaries[0]["headline"]["value"] == pytest.approx(summaries[1]["headline"]["value"], abs=0.02)
    return [run.name.split("-")[0] for run in runs]


def test_two_processes_agree_with_one_for_every_method(tmp_path):
    methods = sorted({path.stem for path in (CONFIGS / "method").glob("*.yaml")} - {"channel"})  # for images
    assert check_that_two_processes_agree_with_one(tmp_path, "-m", f"method={','.join(methods)}") == methods


def test_two_processes_agree_with_one_on_hidden_states(tmp_path):
    assert check_that_two_processes_agree_with_one(tmp_path, "dense=pretrained", "distillation=hidden") == ["pdp"]


def test_two_processes_agree_with_one_about_an_auxiliary_task(tmp_path):
    """Together, where every parameter is used in each step, and in turn, where each step leaves a head unused."""
    auxiliary = ["auxiliary=text_embedded", "auxiliary.label=module", "auxiliary.max_examples=60"]
    options = [*auxiliary, "auxiliary.batch_size=20", "multi_task.alternate=false,true", "method=magnitude"]
    assert check_that_two_processes_agree_with_one(tmp_path, *options, "-m") == ["magnitude", "magnitude"]


def test_two_processes_agree_with_one_on_task_transfer(tmp_path):
    """Stages that leave heads unused; masks of each task; what a task learns besides the model."""
    auxiliary = ["auxiliary=text_embedded", "auxiliary.label=module", "auxiliary.max_examples=60"]
    method = ["method=task_transfer", "sparsity=0.5", "auxiliary.batch_size=20", "method.harden_at=0.5"]
    orders = "method.order=both_then_target,target_then_both,auxiliary_then_target"
    teacher = ["dense=pretrained", "distillation=cofi", "distillation.weight=0"]
    done = check_that_two_processes_agree_with_one(tmp_path, "-m", *auxiliary, *method, *teacher, orders)
    assert done == ["task_transfer"] * 3
    (one, two) = (
        sorted((tmp_path / name).glob("outputs/default/*/auxiliary_masks.safetensors")) for name in ("one", "two")
    )
    assert len(one) == len(two) == 1
    assert one[0].read_bytes() == two[0].read_bytes()


def test_a_nan_loss_names_the_step_and_keeps_the_checkpoint(tmp_path):
    done = prune_run(*SMALL, "optimizer.learning_rate=1e30", cwd=tmp_path)
    assert done.returncode == 1
    assert "the loss is not finite at step" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_config_do_not_import_torch(tmp_path):
    for option in ("--help", "--cfg=job"):
        code = (
            "import sys; from pruneexp.cli import main; sys.argv=['prune-run', sys.argv[1]]\n"
            "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
            "assert 'torch' not in sys.modules"
        )
        command = [sys.executable, "-c", code, option]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "method" in done.stdout
