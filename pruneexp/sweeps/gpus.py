"""One GPU for each of several processes on a machine, or a place on one that several share."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

POLL = 1.0  # seconds between two looks for a free place
_PLACE: list[int] = []  # the open lock file of this process's place; the kernel frees it when the process ends


def visible_gpus(count: int) -> list[str]:
    """The names of this machine's GPUs as CUDA_VISIBLE_DEVICES has them. count: how many torch finds."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def take_place(gpus: list[str], per_gpu: int, *, on_wait: Callable[[], None] = lambda: None) -> str | None:
    """The GPU that this process uses from now on; the only one that CUDA will show it. None where there is no GPU.

    A process takes one of `per_gpu` places on each and keeps it until it ends: CUDA cannot change devices later. The
    places are those of the machine, so that two sweeps of a user share its GPUs, too. `on_wait` is called once if all
    are taken. Must come before the first use of CUDA.
    """
    if not gpus or fcntl is None or _PLACE:
        return os.environ.get("CUDA_VISIBLE_DEVICES") if _PLACE else None
    folder = Path(tempfile.gettempdir()) / f"pruneexp-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while True:
        for place in range(per_gpu):  # one on every GPU before the second on any
            for gpu in gpus:
                descriptor = os.open(folder / f"{gpu}-{place}", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                    continue
                _PLACE.append(descriptor)
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                return gpu
        if not told:
            on_wait()
            told = True
        time.sleep(POLL)
