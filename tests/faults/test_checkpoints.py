"""A checkpoint that the disk damaged, at any byte: the one before it, or a message, and never something wrong."""

import json

import pytest
import torch

from pruneexp.leftovers import CHECKPOINT, PREVIOUS
from pruneexp.loggers.base import Logger
from pruneexp.runs import Run

CPU = torch.device("cpu")
STATES = {step: {"step": step, "model": {"w": torch.arange(60.0) * step}, "best": None} for step in (3, 6)}


def saved(folder, steps=(3, 6)) -> Run:
    run = Run(folder / "run", {"experiment_name": "e", "group": None}, Logger())
    run.start(device="cpu", resumed_from=None)
    for step in steps:
        run.save(STATES[step])
    return run


def restored(folder) -> dict:
    return Run(folder / "run", {}, Logger(), is_main=False).restore(CPU)


def same(state: dict, step: int) -> bool:
    return state["step"] == step and torch.equal(state["model"]["w"], STATES[step]["model"]["w"])


def test_a_checkpoint_cut_at_any_byte_falls_back_to_the_one_before_it(tmp_path):
    run = saved(tmp_path)
    path = run.folder / CHECKPOINT
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        assert same(restored(tmp_path), 3), length


def test_a_changed_byte_anywhere_falls_back_to_the_one_before_it(tmp_path):
    """torch.load alone gives wrong numbers for most of these bytes: it looks at no checksum."""
    run = saved(tmp_path)
    path = run.folder / CHECKPOINT
    content = path.read_bytes()
    for place in range(0, len(content), 2):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        state = restored(tmp_path)
        assert same(state, 3), place


def test_the_fall_back_is_told_once_and_the_good_one_stays(tmp_path, caplog):
    run = saved(tmp_path)
    (run.folder / CHECKPOINT).write_bytes(b"x")
    assert same(run.restore(CPU), 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"{run.folder / CHECKPOINT}: is damaged (OSError); the run goes on from the checkpoint before it, step 3"
    ]
    assert same(run.restore(CPU), 3)


def test_where_both_are_damaged_it_says_so(tmp_path):
    run = saved(tmp_path)
    for name in (CHECKPOINT, PREVIOUS):
        (run.folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: is damaged .* no other; force=true starts the run over"):
        run.restore(CPU)


def test_a_death_between_the_two_renames_loses_one_checkpoint_at_most(tmp_path):
    run = saved(tmp_path)
    (run.folder / CHECKPOINT).replace(run.folder / PREVIOUS)  # and then the process died
    assert same(restored(tmp_path), 6)


def test_a_first_checkpoint_has_none_before_it(tmp_path):
    run = saved(tmp_path, steps=(3,))
    assert not (run.folder / PREVIOUS).exists()
    assert same(restored(tmp_path), 3)


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path):
    run = saved(tmp_path)
    for name in (".checkpoint.pt.123.tmp", ".model.safetensors.99.tmp"):
        (run.folder / name).write_bytes(b"half")
    (run.folder / "notes.txt").write_text("mine")
    run.start(device="cpu", resumed_from=6)
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"config.yaml", "meta.json", "metrics.jsonl", "notes.txt", CHECKPOINT, PREVIOUS}
    run.finish({})
    (run.folder / CHECKPOINT).write_bytes(b"left by a death right after the summary")
    run.start(device="cpu", resumed_from=6)
    assert not (run.folder / CHECKPOINT).exists()


def test_a_half_written_line_of_metrics_is_left_out(tmp_path, caplog):
    run = saved(tmp_path)
    for step in (3, 6):
        run.log({"step": step})
    with (run.folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "loss": 0.\xc3')
    run.start(device="cpu", resumed_from=6)
    assert [row["step"] for row in run.rows()] == [3, 6]
    assert "a line is incomplete and left out" in caplog.text
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
