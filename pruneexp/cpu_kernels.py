"""The loops of cpu_kernels.c, compiled for this processor when they are first asked for.

It takes a C compiler (what CC names, cc, gcc or clang) and a quarter of a second. Without one, or with
PRUNEEXP_CPU_KERNELS=off, there are none, and those who would use them compute the same with torch and numpy.
"""

import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("cpu_kernels.c")
FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC"]
# OpenMP is compiled in but not linked: its functions are then found in the library that torch has loaded, and there are
# no two sets of threads that wait for each other. Where torch has another one, loading fails and one thread must do.
ATTEMPTS = (["-march=native", "-fopenmp"], ["-march=native"], ["-mcpu=native"], [])
SECONDS_TO_COMPILE = 60.0


@functools.cache
def cpu_kernels() -> "CpuKernels | None":
    """The compiled loops, or None where there are none; why is logged."""
    if os.environ.get("PRUNEEXP_CPU_KERNELS") == "off":
        return None
    compiler = _compiler()
    if compiler is None:
        logger.info("soft masks are computed by torch, at twice the cost: no C compiler (CC, cc, gcc, clang)")
        return None
    for options in ATTEMPTS:
        try:
            return CpuKernels(_compiled(compiler, [*FLAGS, *options]))
        except subprocess.CalledProcessError as error:
            problem = error.stderr.strip() or f"it exits with {error.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
    words = shlex.join(compiler)
    logger.info("soft masks are computed by torch, at twice the cost: %s does not compile: %s", words, problem)
    return None


def _compiler() -> list[str] | None:
    """The words of the command that compiles C."""
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return named
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return found and [found]


def _compiled(compiler: list[str], options: list[str]) -> ctypes.CDLL:
    """The library, compiled and then linked without the options.

    Raises:
        CalledProcessError: the compiler refuses; OSError: it is not there, or the library cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="pruneexp-") as folder:
        compiled, library = f"{folder}/kernels.o", f"{folder}/kernels.so"
        for step in ([*options, "-c", str(SOURCE), "-o", compiled], ["-shared", compiled, "-o", library]):
            command = [*compiler, *step]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_TO_COMPILE)
        return ctypes.CDLL(library)  # stays loaded when the file is gone


class CpuKernels:
    """The loops, for contiguous float32 tensors on a CPU; as many threads as torch has."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        number, single = ctypes.c_double, ctypes.c_float
        self._masked = library.masked
        self._masked.argtypes = [pointer, pointer, count, number, number, threads]
        self._masked_backward = library.masked_backward
        self._masked_backward.argtypes = [pointer, pointer, pointer, count, number, number, threads]
        self._count_and_band = library.count_and_band
        self._count_and_band.argtypes = [pointer, count, single, single, pointer, count, pointer, threads]
        self._count_and_band.restype = count

    def masked(self, weight: Tensor, out: Tensor, sharpness: float, offset: float) -> None:
        """out = m w with m = sigmoid(sharpness w^2 + offset)."""
        self._masked(weight.data_ptr(), out.data_ptr(), weight.numel(), sharpness, offset, torch.get_num_threads())

    def masked_backward(self, weight: Tensor, gradient: Tensor, out: Tensor, sharpness: float, offset: float) -> None:
        """out = gradient (m + 2 sharpness w^2 m (1 - m))."""
        pointers = (weight.data_ptr(), gradient.data_ptr(), out.data_ptr())
        self._masked_backward(*pointers, weight.numel(), sharpness, offset, torch.get_num_threads())

    def count_and_band(self, values: Tensor, low: float, high: float) -> tuple[int, np.ndarray]:
        """How many magnitudes are below `low`, and those in [low, high] in any order.

        None of the latter where they are more than an eighth of all: ordering all is no slower then.
        """
        band = np.empty(values.numel() // 8 + 1, np.float32)
        found = ctypes.c_int64()
        into = (band.ctypes.data, band.size, ctypes.addressof(found))
        below = self._count_and_band(values.data_ptr(), values.numel(), low, high, *into, torch.get_num_threads())
        return below, band[: found.value if found.value <= band.size else 0]
