"""Running out of memory, and other failures of a machine, end in one line that says what to do."""

import sys

import pytest
import torch

from pruneexp.failures import ProcessLost, TrainingError, explained
from pruneexp.trainer import Trainer

CONFIG = {"batch_size": 64, "training": {"accumulate": 1}, "precision": "fp32", "dataset": {}}
CPU = "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            "out of GPU memory with batch_size=64",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of GPU memory with batch_size=64"),
        (RuntimeError(CPU), "out of host memory with batch_size=64"),
        (MemoryError(), "out of host memory with batch_size=64"),
    ],
    ids=["GPU", "cuDNN", "allocator", "Python"],
)
def test_out_of_memory_names_the_batch_size_and_what_to_try(error, message):
    with pytest.raises(TrainingError) as raised, explained(CONFIG, "here"):
        raise error
    text = str(raised.value)
    assert text.startswith(message)
    assert "try training.accumulate=2 (the same batch in smaller pieces), or batch_size=32" in text
    assert ("precision=bf16" in text) == ("GPU" in message)


def test_the_remedies_are_those_that_are_left():
    config = CONFIG | {"batch_size": 1, "precision": "bf16"}
    with pytest.raises(TrainingError, match=r"with batch_size=1; try a smaller model$"), explained(config, "here"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    config = CONFIG | {"training": {"accumulate": 4}}
    with pytest.raises(TrainingError, match=r"in 4 pieces; try training\.accumulate=8"), explained(config, "here"):
        raise MemoryError


def test_a_lost_process_and_an_operation_without_a_deterministic_kernel_are_explained():
    words = r"another process of this run has ended.*the same command resumes here"
    with pytest.raises(ProcessLost, match=words), explained(CONFIG, "here"):
        raise RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:6")
    words = "deterministic=true: upsample_backward does not have a deterministic implementation; leave it out"
    with pytest.raises(TrainingError, match=words), explained(CONFIG, "here"):
        raise RuntimeError("upsample_backward does not have a deterministic implementation, but you set 'torch.use_")


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("mine"), KeyError("x"), TypeError("y")):
        with pytest.raises(type(error), match=str(error)), explained(CONFIG, "here"):
            raise error


def test_memory_that_is_really_not_there(tmp_path, monkeypatch, capsys):
    """The allocator is asked for more than any machine has, in the middle of a step."""
    from pruneexp import cli

    monkeypatch.setattr(Trainer, "_backward", lambda self, batch: torch.empty(2**46))
    monkeypatch.chdir(tmp_path)
    options = ["logger=none", "dense=none", "device=cpu", "dataset.max_examples=40", "batch_size=20", "epochs=1"]
    monkeypatch.setattr(sys, "argv", ["prune-run", *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    errors = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 1
    assert errors.startswith("prune-run: out of host memory with batch_size=20; try training.accumulate=2")
