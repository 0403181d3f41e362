"""Where and with what a run is computed: what a reader needs to repeat it."""

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pruneexp.credentials import redacted


def place_of(device: str) -> dict[str, Any]:
    """What can make the same step come out otherwise: kind of device, number of processes, version of torch."""
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device.partition(":")[0]
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return {"device": kind, "processes": processes, "torch": str(torch.__version__)}


def place_in_words(place: dict[str, Any]) -> str:
    """What `place_of` returned, for a message."""
    processes = place["processes"]
    return f"{place['device']}, {processes} process{'es' if processes > 1 else ''}, torch {place['torch']}"


def describe_environment() -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, commit, machine, command line, time of start."""
    from importlib.metadata import version

    packages = ("pruneexp", "torch", "torchvision", "transformers", "datasets", "timm", "accelerate", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": _commit(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *map(redacted, sys.argv[1:])],
        "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, with "+" if it is changed; None when installed."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return head + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
