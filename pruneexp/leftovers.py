"""What a killed process leaves in a run's folder, and how it goes away again."""

import os
from contextlib import suppress
from pathlib import Path

from pruneexp.config import Config, finished_summary
from pruneexp.locks import NAME, Busy, held
from pruneexp.naming import run_folder

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
UNFINISHED = (".*.tmp", ".tmp??????")
"""Files that are being written: ours, and those that safetensors makes of its own while it writes one of ours."""


def clear_leftovers(folder: Path) -> None:
    """Removes files that were being written when a process died, and the checkpoints of a run that is finished.

    For a process that may write in the folder, which no other one then does.
    """
    for path in _leftovers(folder):
        path.unlink(missing_ok=True)


def _leftovers(folder: Path) -> list[Path]:
    unfinished = [path for pattern in UNFINISHED for path in folder.glob(pattern)]
    checkpoints = [folder / CHECKPOINT, folder / PREVIOUS] if (folder / "summary.json").is_file() else []
    return [path for path in (*unfinished, *checkpoints) if path.is_file()]  # a folder is an export under way


def finished_earlier(config: Config) -> Config | None:
    """The summary of the run that a config describes, None if it is not finished or is to start over.

    What a process left there that was killed right after it had finished goes away, its lock file too.

    Raises:
        ConfigError: as `finished_summary`.
    """
    folder = run_folder(config)
    summary = None if config["force"] else finished_summary(folder)
    is_main = int(os.environ.get("RANK", "0")) == 0
    if summary is not None and is_main and (_leftovers(folder) or (folder / NAME).exists()):
        with suppress(Busy, OSError), held(folder, wait=False):  # which removes the lock file at the end
            clear_leftovers(folder)
    return summary
