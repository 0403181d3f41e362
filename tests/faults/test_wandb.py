"""W&B fails in every way there is, under whole runs: training goes on, metrics.jsonl has all, one warning at most."""

import json
import os
import subprocess
import sys

import pytest

from pruneexp import experiment
from pruneexp.cli import compose

SMALL = ["dataset.max_examples=60", "batch_size=20", "epochs=4", "dense=none", "device=cpu", "method=gmp"]
KEY = "0123456789abcdef0123456789abcdef01234567"


pytestmark = pytest.mark.usefixtures("no_wandb_account")


def run(folder, *options):
    return experiment.run(compose([*SMALL, f"output_dir={folder / 'outputs'}", *options]))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]


def rows(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


WHOLE_RUN = """
import sys
from pruneexp import cli
sys.argv = ["prune-run", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://host.invalid"], ids=["nobody listens", "no such host"])
def test_a_server_that_cannot_be_reached(url, tmp_path):
    """In a process of its own: the SDK keeps settings of the first server that it hears of."""
    environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WHOLE_RUN, *SMALL, "logger.mode=online"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B") == 1, done.stdout
    assert "W&B records this run offline" in done.stdout
    assert KEY not in done.stdout + done.stderr
    (folder,) = tmp_path.glob("outputs/default/*")
    assert len(rows(folder)) == 4
    assert list(folder.glob("wandb/offline-run-*/*.wandb")), "wandb sync needs this"


KILLED_SERVICE = """
import os, signal, sys
from pathlib import Path
from pruneexp import cli, runs

def services():
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        if "wandb-core" in name and int(rest.split()[1]) == os.getpid():
            yield int(path.parent.name)

def kill_and_log(self, row):
    if row["step"] == 6:
        (service,) = services()
        os.kill(service, signal.SIGKILL)
    log(self, row)

log, runs.Run.log = runs.Run.log, kill_and_log
sys.argv = ["prune-run", *sys.argv[1:]]
cli.main()
"""


def test_a_service_that_is_killed_in_mid_run_and_the_next_job_has_a_new_one(tmp_path):
    """In a process of its own, to see what the SDK says when that ends."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED_SERVICE, *SMALL, "logger.mode=offline", "-m", "seed=1,2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    folders = sorted(path.parent for path in tmp_path.glob("outputs/default/*/summary.json"))
    logs = [(folder / "log.txt").read_text() for folder in folders]
    assert ["W&B is switched off for this run" in log for log in logs] == [True, True], logs
    assert [rows(folder) for folder in folders] == [[3, 6, 9, 12]] * 2
    assert all(list(folder.glob("wandb/offline-run-*/*.wandb")) for folder in folders)


def test_no_room_for_what_the_sdk_writes(tmp_path, caplog):
    """Its folder is a file system of its own, which is full at once; the run's folder is not."""
    folder = experiment.run_folder(compose([*SMALL, f"output_dir={tmp_path / 'outputs'}", "logger.mode=offline"]))
    (folder / "wandb").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "tmpfs", str(folder / "wandb")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        _, summary = run(tmp_path, "logger.mode=offline")
    finally:
        subprocess.run(["umount", "-l", str(folder / "wandb")], check=True)
    assert len(rows(folder)) == 4
    assert summary["steps"] == 12
    assert len(warnings(caplog)) <= 1


def test_an_empty_id_from_a_death_in_mid_write_is_made_anew(tmp_path):
    from pruneexp.loggers.wandb import _run_id

    (tmp_path / "wandb_id").write_text("")
    made = _run_id(tmp_path, resumed=True)
    assert len(made) == 16
    assert _run_id(tmp_path, resumed=True) == made
