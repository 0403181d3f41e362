"""A full disk, a read-only folder, odd paths and a clock that jumps, under whole runs."""

import errno
import json
import os
import random
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

import pruneexp
from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.whole_files import replacing

SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=3", "dense=none", "logger=none", "device=cpu"]


def prune_run(folder, monkeypatch, *options) -> int:
    """The exit code of the command in a folder."""
    from pruneexp import cli

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["prune-run", *SMALL, *options])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def small_disk(tmp_path):
    """A function that makes a file system of so many KiB in a folder, or changes its size, or makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def make(options):
        remount = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options]
        done = subprocess.run(["mount", *remount, "tmpfs", str(folder)], capture_output=True, check=False)
        if done.returncode and not mounted:
            pytest.skip("cannot mount a file system here")
        assert not done.returncode
        mounted.append(options)
        return folder

    yield make
    if mounted:
        os.chdir("/")
        subprocess.run(["umount", "-l", str(folder)], check=True)


def files(folder):
    (run,) = folder.glob("outputs/default/*")
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "masks.safetensors")}


@pytest.mark.parametrize("kib", [20, 1500, 3000, 5200, 6300])
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_when_there_is_room(
    kib, small_disk, tmp_path, monkeypatch, capsys
):
    """Sizes at which the first files, the first checkpoint, a later one, and the final weights have no room."""
    disk = small_disk(f"size={kib}k")
    assert prune_run(disk, monkeypatch) == 1
    errors = capsys.readouterr().err.strip()
    assert "No space left on device: outputs" in errors
    assert "\n" not in errors
    assert not list(disk.glob("outputs/default/*/.*.tmp"))
    small_disk("size=64m")
    assert prune_run(disk, monkeypatch) == 0
    steady = tmp_path / "steady"
    steady.mkdir()
    assert prune_run(steady, monkeypatch) == 0
    assert files(disk) == files(steady)


def test_a_read_only_folder_is_named(small_disk, monkeypatch, capsys):
    disk = small_disk("size=64m")
    small_disk("ro")
    assert prune_run(disk, monkeypatch) == 1
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("prune-run: Read-only file system: outputs")
    assert "\n" not in errors


@pytest.mark.parametrize("writer", ["torch", "safetensors", "text"])
def test_a_writer_that_hides_a_full_disk_is_seen_through(writer, small_disk):
    disk = small_disk("size=64k")
    write = {
        "torch": lambda path: torch.save({"w": torch.ones(100_000)}, path),
        "safetensors": lambda path: save_file({"w": torch.ones(100_000)}, path),
        "text": lambda path: path.write_text("x" * 100_000),
    }
    with pytest.raises(OSError) as error, replacing(disk / "file") as temporary:
        write[writer](temporary)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(disk / "file"))
    assert not list(disk.iterdir())


def test_an_error_of_another_kind_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), replacing(tmp_path / "file"):
        raise RuntimeError("mine")


def test_paths_with_spaces_and_letters_of_other_alphabets(tmp_path, monkeypatch):
    from pruneexp.export.command import main as export

    home = tmp_path / "Läufe mit Leerzeichen" / "実験 (1)"
    home.mkdir(parents=True)
    pruned = ["method=magnitude", "pattern=channel", "sparsity=0.5", "epochs=1"]
    assert prune_run(home, monkeypatch, *pruned, f"output_dir='{home}/Ergebnisse é'") == 0
    (run,) = home.glob("Ergebnisse é/default/*")
    assert json.loads((run / "summary.json").read_text())["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.02)
    export([str(run), "--runs", "2", "--batch-sizes", "1", "--device", "cpu"])
    assert sum(p.numel() for p in pruneexp.load(run / "export").parameters()) < sum(
        p.numel() for p in pruneexp.load(run).parameters()
    )
    again = [*pruned, f"output_dir='{home}/andere'", f"dense='{run}'"]
    assert prune_run(home, monkeypatch, *again) == 0


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    steady, _ = experiment.run(compose([*SMALL, f"output_dir={tmp_path / 'steady'}"]))
    jumps = random.Random(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.7e9 + jumps.uniform(-1e8, 1e8))
        jumped, summary = experiment.run(compose([*SMALL, f"output_dir={tmp_path / 'jumped'}"]))
    assert 0 < summary["wall_seconds"] < 600
    for name in ("model.safetensors", "masks.safetensors"):
        assert (steady / name).read_bytes() == (jumped / name).read_bytes()
    rows = [json.loads(line) for line in (jumped / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["examples_per_second"] < 1e6 for row in rows)
