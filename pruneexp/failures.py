"""Failures of a machine or of its data while a run goes on, as one line each that says what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch

NO_MEMORY = ("can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED", "CUDA out of memory")
"""What torch, cuDNN and cuBLAS say when memory runs out, where they have no type of their own for it."""

NO_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What gloo and NCCL say in a process whose partner has died."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one line."""


class Stepping(Protocol):
    """Something that counts steps."""

    step: int


class ProcessLost(TrainingError):
    """Another process of this run has died, which only those that are left can tell."""

    on_any_process = True  # not the first one alone prints it


@contextmanager
def one_line(trainer: Stepping) -> Iterator[None]:
    """A context in which a ValueError, as of an example that cannot be read, becomes a TrainingError with the step."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"step {trainer.step}: {' '.join(str(error).split())}") from error


@contextmanager
def explained(config: Mapping[str, Any], folder: object) -> Iterator[None]:
    """A context in which running out of memory, and losing a process, become TrainingErrors. config: of the run."""
    try:
        yield
    except MemoryError as error:
        raise TrainingError(_no_memory("host", config)) from error
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingError(_no_memory("GPU", config)) from error
        if any(words in text for words in NO_MEMORY):
            raise TrainingError(_no_memory("host" if "CPU" in text else "GPU", config)) from error
        if any(words in text for words in NO_PEER):
            raise ProcessLost(
                f"another process of this run has ended, and this one cannot go on alone; the same command resumes "
                f"{folder}"
            ) from error
        if "deterministic" in text:
            raise TrainingError(
                f"deterministic=true: {' '.join(text.split()).partition(',')[0]}; leave it out, or take device=cpu"
            ) from error
        raise


def _no_memory(where: str, config: Mapping[str, Any]) -> str:
    batch, parts = config["batch_size"], config["training"]["accumulate"]
    remedies = [f"training.accumulate={2 * parts} (the same batch in smaller pieces)"] if 2 * parts <= batch else []
    remedies += [f"batch_size={batch // 2}"] if batch > 1 else []
    if where == "GPU":
        remedies += ["precision=bf16"] if config["precision"] != "bf16" else []
    elif any(str(key).startswith(("root", "workers")) for key in config["dataset"]):
        remedies += ["dataset.max_examples or fewer dataset.workers"]
    pieces = f" in {parts} pieces" if parts > 1 else ""
    return f"out of {where} memory with batch_size={batch}{pieces}; try {', or '.join(remedies) or 'a smaller model'}"
