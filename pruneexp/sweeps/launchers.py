"""What a sweep has to know about Hydra's launchers, and how many jobs run side by side."""

from pathlib import Path
from typing import Any

from pruneexp.config import ConfigError
from pruneexp.sweeps.gpus import visible_gpus
from pruneexp.sweeps.state import Kind

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # there where NVIDIA's, AMD's or WSL's driver is


def kind_of(launcher: Any) -> Kind:
    """Where a launcher runs jobs."""
    return {"BasicLauncher": "here", "JoblibLauncher": "processes"}.get(type(launcher).__name__, "cluster")


def places(launcher: Any, device: str, jobs_per_gpu: int) -> int | None:
    """How many jobs have a place side by side; None if that is the launcher's business.

    Raises:
        ConfigError: the GPUs have no place for as many jobs as the launcher was told to run.
    """
    if not isinstance(jobs_per_gpu, int) or jobs_per_gpu < 1:
        raise ConfigError(f"sweep.jobs_per_gpu={jobs_per_gpu}: must be at least 1")
    if kind_of(launcher) != "processes":
        return 1 if kind_of(launcher) == "here" else None
    from joblib import effective_n_jobs

    asked = int(launcher.joblib["n_jobs"])
    gpus = len(_gpus()) if device in ("auto", "cuda") else 0
    on_gpus = gpus * jobs_per_gpu
    if gpus and asked > on_gpus:
        raise ConfigError(
            f"hydra.launcher.n_jobs={asked}: {gpus} GPUs with sweep.jobs_per_gpu={jobs_per_gpu} hold {on_gpus} jobs; "
            "lower it, or raise sweep.jobs_per_gpu"
        )
    return min(effective_n_jobs(asked), on_gpus) if gpus else effective_n_jobs(asked)


def limit(launcher: Any, jobs: int) -> None:
    """Lets a launcher with processes of its own have no more of them than there are jobs.

    joblib gives each process its share of the cores, as OMP_NUM_THREADS where that is not set; torch follows it.
    """
    if kind_of(launcher) == "processes":
        launcher.joblib["n_jobs"] = jobs


def _gpus() -> list[str]:
    """The GPUs of this machine; torch is asked only where there is a driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch

    return visible_gpus(torch.cuda.device_count())
