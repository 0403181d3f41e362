"""Whole runs in this process, and what they leave."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.runs import Run


def run(folder, *options):
    """The folder and the summary of a run with these options, somewhere below `folder`."""
    return experiment.run(compose([f"output_dir={folder}", *options]))


def weights(folder, name="model"):
    """The tensors of a run's file of that name."""
    return load_file(folder / f"{name}.safetensors")


def same(one, two):
    """Whether two files hold the same, bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@contextmanager
def dying_after(saves=1):
    """A context in which a run dies right after it has saved so many checkpoints, and has to."""
    save, saved = Run.save, []

    def save_and_die(self, state):
        save(self, state)
        saved.append(state["step"])
        if len(saved) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", save_and_die)
        yield
