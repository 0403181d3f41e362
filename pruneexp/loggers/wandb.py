"""Weights & Biases: a mirror of a run, online or in files that `wandb sync` uploads later."""

import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pruneexp.loggers.base import Logger

LOG = logging.getLogger("pruneexp")
MODES = ("auto", "online", "offline", "disabled")
# Seconds to wait for a server that does not answer; without limits the SDK would hold up a run for 90 s, and at its
# end for ever. What was not uploaded by then is on disk.
INIT_TIMEOUT, FINISH_TIMEOUT = 20.0, 120.0
PLOT = "accuracy_vs_sparsity.png"
ARTIFACT_FILES = ("config.yaml", "summary.json", "structure.json", "masks.safetensors", "model.safetensors")


def _mirroring(method: Callable[..., None]) -> Callable[..., None]:
    """The method as one that never raises: it does nothing without a mirror, and an error ends the mirror."""

    @functools.wraps(method)
    def guarded(self: "WandB", *args: Any, **kwargs: Any) -> None:
        try:
            if self._run is not None:
                method(self, *args, **kwargs)
        except Exception as error:  # whatever it is, the run matters more than its mirror
            self._switch_off(error)

    return guarded


class WandB(Logger):
    """Mirrors a run to Weights & Biases. It asks nothing, and no error of it ever reaches the run.

    The files lie in `<run folder>/wandb`; an offline run is uploaded by `wandb sync <run folder>/wandb/offline-run-*`.
    A resumed run goes on under the same W&B id (`<run folder>/wandb_id`): online as one W&B run, offline in a second
    folder, which that command uploads after the first. Evaluations between the last checkpoint and the interruption
    stand in both parts; metrics.jsonl has them once.
    """

    def __init__(self, *, project: str, entity: str | None, mode: str, tags: list[str], log_model: bool) -> None:
        """Arguments as in configs/logger/wandb.yaml.

        Raises:
            ValueError: there is no such mode.
        """
        if mode not in MODES:
            raise ValueError(f"logger.mode={mode}: no such mode; choose one of {', '.join(MODES)}")
        self.project, self.entity, self.mode, self.tags, self.log_model = project, entity, mode, list(tags), log_model
        self._run: Any = None  # a wandb.Run while there is a mirror
        self._charted: set[str] = set()

    def start(self, *, name: str, group: str, folder: Path, config: dict[str, Any], resumed_from: int | None) -> None:
        """Opens the mirror of the run `name` in `folder`. resumed_from: the step it goes on from, None when new."""
        self._run, self._charted = None, set()
        if self.mode == "disabled":
            return
        try:
            arguments = {"name": name, "group": group, "config": config, "dir": str(folder)}
            arguments |= {"project": self.project, "entity": self.entity, "tags": self.tags}
            arguments["id"] = _run_id(folder, resumed=resumed_from is not None)
            arguments["resume"] = "allow" if resumed_from is not None else None
            self._run = open_run(self.mode, **arguments)
        except Exception as error:
            self._switch_off(error)

    @_mirroring
    def log(self, metrics: dict[str, float]) -> None:
        """Mirrors one line of metrics.jsonl; validation charted against sparsity, the rest against step."""
        for metric in metrics.keys() - self._charted - {"step"}:
            against = "sparsity/prunable" if metric.startswith("validation") else "step"
            self._run.define_metric(metric, step_metric=against)
        self._charted |= metrics.keys()
        self._run.log(metrics)

    @_mirroring
    def finish(self, summary: dict[str, Any], folder: Path) -> None:
        """Mirrors the summary, also as a table of one row (W&B joins those of runs), the plot, the model if asked."""
        import wandb

        row = _flat(summary)
        media: dict[str, Any] = {"result": wandb.Table(columns=list(row), data=[list(row.values())])}
        if (folder / PLOT).exists():
            media[Path(PLOT).stem] = wandb.Image(str(folder / PLOT))
        self._run.log(media)
        self._run.summary.update(summary)
        if self.log_model:
            artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
            for file in ARTIFACT_FILES:
                if (folder / file).exists():
                    # Immutable: taken from the run folder, where the SDK would first copy it to the home folder.
                    artifact.add_file(str(folder / file), policy="immutable")
            self._run.log_artifact(artifact)

    @_mirroring
    def close(self, exit_code: int) -> None:
        """Closes the mirror, also after a failure. Safe to call twice and without `start`."""
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)

    def _switch_off(self, error: Exception) -> None:
        run, self._run = self._run, None
        LOG.warning("W&B is switched off for this run: %s: %s", type(error).__name__, _first_line(error))
        try:
            if run is not None:
                run.finish(exit_code=1)
            elif "Connection" in type(error).__name__:
                _forget_service()
        except Exception:
            _forget_service()


def open_run(mode: str, **arguments: Any) -> Any:
    """A new W&B run that asks and prints nothing, or None if W&B is switched off. arguments: of `wandb.init`."""
    import wandb

    mode = _usable_mode(mode)
    if mode == "disabled":
        return None
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,  # meta.json holds the commit
        save_code=False,
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
    )
    return wandb.init(**arguments, mode=mode, reinit="create_new", settings=settings)


def _usable_mode(wanted: str) -> str:
    """online, offline or disabled: what is wanted, but offline where no key is configured or no server accepts it.

    `auto` asks the SDK's own settings (WANDB_MODE, `wandb offline`). Nothing here asks the user.
    """
    import wandb

    # Silent from the first call on: `login` would print where it found the key.
    configured = wandb.setup(wandb.Settings(silent=True)).settings.mode
    mode = wanted if wanted != "auto" else {"dryrun": "offline", "run": "online"}.get(configured, configured)
    if mode != "online":
        return mode
    try:
        if wandb.login(prompt=False, verify=True):
            return "online"
        problem = "no key is configured; `wandb login` sets one" if wanted == "online" else ""
    except Exception as error:  # no server, or a key that it does not accept
        problem = _first_line(error)
    if problem:
        LOG.warning("W&B records this run offline: %s", problem)
    return "offline"


def _forget_service() -> None:
    """Lets the SDK start a new process for the next run, where that of this one is gone.

    It would also end Python with a traceback of its own otherwise.
    """
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _run_id(folder: Path, *, resumed: bool) -> str:
    """The W&B id of the run in `folder`: kept there for when it is resumed, new for a run that starts over.

    Random, since a project may be shared: two people's runs of one configuration have folders of one name.
    """
    file = folder / "wandb_id"
    if not (resumed and file.exists() and file.read_text(encoding="utf-8").strip()):  # empty: died in mid-write
        file.write_text(secrets.token_hex(8) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested numbers and texts under joined keys: {"macs": {"dense": 1}} -> {"macs/dense": 1}. Lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        elif value is None or isinstance(value, str | int | float):
            flat[prefix + key] = value
    return flat
