"""What a sweep has to know about Hydra's launchers, and how many jobs run side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pruneexp.config import ConfigError
from pruneexp.sweeps.entries import Entry
from pruneexp.sweeps.gpus import visible_gpus
from pruneexp.sweeps.state import Kind

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # there where NVIDIA's, AMD's or WSL's driver is


def kind_of(launcher: Any) -> Kind:
    """Where a launcher runs jobs."""
    return {"BasicLauncher": "here", "JoblibLauncher": "processes"}.get(type(launcher).__name__, "cluster")


def concurrency(launcher: Any, entries: Sequence[Entry], jobs_per_gpu: int) -> int:
    """How many jobs the launcher runs side by side, which is set in it where it has its own processes.

    joblib gives each of them its share of the cores as OMP_NUM_THREADS, if that is not set; torch follows it.

    Raises:
        ConfigError: the GPUs have no place for as many jobs.
    """
    if not isinstance(jobs_per_gpu, int) or jobs_per_gpu < 1:
        raise ConfigError(f"sweep.jobs_per_gpu={jobs_per_gpu}: must be at least 1")
    if kind_of(launcher) != "processes":
        return 1 if kind_of(launcher) == "here" else max(1, len(entries))
    from joblib import effective_n_jobs

    asked = int(launcher.joblib["n_jobs"])
    at_once = effective_n_jobs(asked)
    gpus = len(_gpus()) if any(entry.config["device"] in ("auto", "cuda") for entry in entries) else 0
    if gpus and at_once > gpus * jobs_per_gpu:
        if asked > 0:
            raise ConfigError(
                f"hydra.launcher.n_jobs={asked}: {gpus} GPUs with sweep.jobs_per_gpu={jobs_per_gpu} hold "
                f"{gpus * jobs_per_gpu} jobs; lower it, or raise sweep.jobs_per_gpu"
            )
        at_once = gpus * jobs_per_gpu
    at_once = max(1, min(at_once, len(entries)))
    launcher.joblib["n_jobs"] = at_once
    return at_once


def _gpus() -> list[str]:
    """The GPUs of this machine; torch is asked only where there is a driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch

    return visible_gpus(torch.cuda.device_count())
