"""Files by which the jobs of a sweep and the process that started them tell each other how things stand.

They lie in `<output_dir>/.sweeps/<host>-<pid>-<start>/`, so that it does not matter where a job runs, and are removed
when the sweep ends. What stays is the sweep file, `<name>.sweep.json`, which docs/sweeps.md describes.
"""

import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pruneexp.whole_files import write_json

SCRATCH = ".sweeps"
STAMP = "%Y-%m-%dT%H:%M:%S%z"


Kind = Literal["here", "processes", "cluster"]
"""Where a launcher runs jobs: one after another in this process, in several on this machine, or somewhere else."""


class Stopped(Exception):
    """A signal stopped the sweep. `exit_code` is 128 + the signal."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class SomeFailed(Exception):
    """Some runs of a sweep failed; `complaints` has a line for each.

    `exit_code` is that of single runs: 2 if all that failed did so on bad input, else 1.
    """

    def __init__(self, complaints: list[str], runs: int, *, bad_input: bool) -> None:
        """runs: of the sweep. bad_input: whether each of those that failed had options or data that cannot work."""
        how = " on bad input" if bad_input else "; the same command runs what is missing"
        super().__init__(f"{len(complaints)} of {runs} runs failed{how}")
        self.complaints = complaints
        self.exit_code = 2 if bad_input else 1


def read_json(path: Path) -> dict[str, Any]:
    """What is in a file; nothing where there is none, or no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


class Board:
    """What jobs say of themselves, one file each with one writer, and what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, output_dir: Path) -> "Board":
        """One for a sweep that starts now. Those of sweeps that died on this machine are removed."""
        base = output_dir / SCRATCH
        for old in base.glob(f"{socket.gethostname()}-*-*"):
            if not is_alive(int(old.name.split("-")[-2])):
                shutil.rmtree(old, ignore_errors=True)
        board = cls(base / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}")
        board.folder.mkdir(parents=True)
        return board

    def remove(self) -> None:
        """Removes the files, and the folders that hold nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def tell(self, **what: Any) -> None:
        """Adds to what all jobs are told."""
        write_json(self.folder / "told.json", {**self.told(), **what})

    def told(self) -> dict[str, Any]:
        """What all jobs are told."""
        return read_json(self.folder / "told.json")

    def report(self, job: int, **what: Any) -> None:
        """Adds to what is known of a job; called by that job only."""
        write_json(self.folder / f"{job}.json", {**self.job(job), **what})

    def job(self, job: int) -> dict[str, Any]:
        """What is known of a job: state, pid, host, start (seconds since 1970), and what it ended with."""
        return read_json(self.folder / f"{job}.json")

    def forget(self, job: int) -> None:
        """Clears what is known of a job, before it starts another time."""
        (self.folder / f"{job}.json").unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def progress(folder: Path) -> dict[str, Any]:
    """The last whole line of a run's metrics, nothing if there is none."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 14)))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines[:-1]):
        with suppress(ValueError):
            row = json.loads(line)
            return row if isinstance(row, dict) else {}
    return {}
