"""Choosing a device and a precision."""

import gc
import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState, PartialState

PRECISIONS = {"fp32": "no", "bf16": "bf16"}


def check_device(device: str) -> None:
    """Raises ValueError, with the remedy, if this machine has no such device."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"device={device}: want auto, cpu, cuda, cuda:<index> or mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device={device}: no CUDA GPU is usable here; use device=auto or device=cpu")
        if index and int(index) >= torch.cuda.device_count():
            raise ValueError(f"device={device}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device}: no Apple GPU is usable here; use device=auto or device=cpu")


def check_precision(precision: str) -> None:
    """Raises ValueError if training knows no such precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision}: want one of {', '.join(PRECISIONS)}")


def set_deterministic(wanted: bool) -> None:
    """Lets torch use only kernels that give the same bits each time, or again any. A CPU uses no others.

    An operation that has no such kernel raises. cuBLAS wants its workspace set before its first use
    (https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility).
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False


def make_accelerator(device: str, precision: str, *, find_unused: bool = False) -> Accelerator:
    """A fresh Accelerator; the process group, if torchrun started this process, is kept from job to job.

    Accelerate keeps its settings in class-level state, which would carry one job's precision into the next.

    find_unused: some steps leave parameters unused, which several processes must find out together.

    Raises:
        ValueError: there is no such device or precision.
    """
    check_device(device)
    check_precision(precision)
    if device == "cpu":
        PartialState._reset_state() if not torch.distributed.is_initialized() else None
    AcceleratorState._reset_state()
    GradientState._reset_state()
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    wrapping = [DistributedDataParallelKwargs(find_unused_parameters=True)] if find_unused else None
    return Accelerator(cpu=device == "cpu", mixed_precision=PRECISIONS[precision], kwargs_handlers=wrapping)


def free_memory() -> None:
    """Gives back what the last job held, so that jobs of one process do not add up."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
