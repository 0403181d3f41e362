"""Killing a process at a moment: a point in time, or right before one of its file operations."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree", "shutil.copyfile"}


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the start, or before the n-th file operation, with `cut` as in `Killer`."""

    after: float | None = None
    at: int = 0
    cut: float | None = None

    def __str__(self) -> str:
        if self.after is not None:
            return f"after {self.after:.3f} s"
        return f"before file operation {self.at}, cut at {self.cut}"


NEVER = Moment()


@dataclass
class Killer:
    """Kills this process right before its n-th file operation below a folder; n = 0: counts them only.

    cut: cut a temporary file that is about to get its name at this fraction of its bytes first.
    """

    root: str
    n: int = 0
    cut: float | None = None
    seen: int = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        """An audit hook (PEP 578)."""
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if not (writes or event in FILE_EVENTS) or not str(arguments[0]).startswith(self.root):
            return
        self.seen += 1
        if self.seen == self.n:
            if event == "os.rename" and self.cut is not None and _is_temporary(arguments[0]):
                os.truncate(arguments[0], int(self.cut * os.path.getsize(arguments[0])))
            os.kill(os.getpid(), signal.SIGKILL)


def _is_temporary(path: str) -> bool:
    """Whether it is a file that is not whole before it has its name; others are on the disk already."""
    return path.endswith(".tmp") and os.path.isfile(path)


def below(killer: Killer, folder: Path) -> Callable[[str, tuple], None]:
    """The killer as a hook that also understands paths relative to `folder`, the working folder of the process."""

    def hook(event: str, arguments: tuple) -> None:
        if arguments and isinstance(arguments[0], str | os.PathLike):
            killer(event, (os.path.join(folder, os.fspath(arguments[0])), *arguments[1:]))

    return hook
