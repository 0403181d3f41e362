"""Locks on the folders of runs, so that no two processes train the same run.

A lock is the kernel's (flock) on the hidden file `.lock` in the folder, which also says who has it. The kernel lets go
of it when the process ends in whatever way, so that nothing is ever left locked by a dead one. That holds among
processes of one machine on any local file system, and among machines on NFS as Linux has it (version 4, or 3 with its
lock service): there a lock of a machine that vanished lasts until its lease runs out, 90 seconds by default. On a file
system that refuses flock nothing is locked, and a warning says so; on Windows nothing is locked at all.
"""

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOG = logging.getLogger("pruneexp")
NAME = ".lock"
POLL = 0.5  # seconds between two looks at a lock that another process has
TAKEN = (errno.EAGAIN, errno.EACCES)  # errors of flock that mean that another process has it
_OURS: set[Path] = set()


class Busy(RuntimeError):
    """Another process has the run. The message is one line that says who."""

    def __init__(self, folder: Path, holder: dict[str, Any]) -> None:
        super().__init__(f"{folder}: {described(holder)} is at it")
        self.folder = folder
        self.holder = holder


def described(holder: dict[str, Any]) -> str:
    """Who has a lock, in words."""
    if not holder:
        return "another process"
    place = "" if holder["host"] == socket.gethostname() else f" on {holder['host']}"
    return f"process {holder['pid']}{place}, since {holder['since']},"


@contextmanager
def held(folder: Path, *, wait: bool, on_wait: Callable[[Busy], None] = lambda busy: None) -> Iterator[None]:
    """A context in which this process alone has the run in `folder`, which is made, and removed again if left empty.

    A context inside another one on the same folder does nothing, nor does one in a process that is not the main one of
    several that train together. wait: until the other process lets go, with `on_wait` called once before; several
    that train together never wait, since they would lose each other.

    Raises:
        Busy: another process has it, and this one does not wait.
    """
    if folder.resolve() in _OURS or fcntl is None or int(os.environ.get("RANK", "0")) != 0:
        yield
        return
    wait = wait and int(os.environ.get("WORLD_SIZE", "1")) == 1
    made = next((parent for parent in reversed([folder, *folder.parents]) if not parent.exists()), None)
    descriptor = _take(folder)
    told = False
    while isinstance(descriptor, Busy):
        if not wait:
            raise descriptor
        if not told:
            on_wait(descriptor)
            told = True
        time.sleep(POLL)
        descriptor = _take(folder)
    _OURS.add(folder.resolve())
    try:
        yield
    finally:
        _OURS.discard(folder.resolve())
        (folder / NAME).unlink(missing_ok=True)  # while we have it; whoever opened it before sees that it is gone
        if descriptor is not None:
            os.close(descriptor)
        _remove_empty(folder, made)


def _take(folder: Path) -> int | Busy | None:
    """The open lock file, whose lock we have; or who has it; or None on a file system without locks."""
    path = folder / NAME
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder has just removed the empty folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            found = _read(descriptor)
            os.close(descriptor)
            if error.errno in TAKEN:
                return Busy(folder, found)
            LOG.warning("%s: this file system has no locks; see to it that no two commands train the same run", folder)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # the lock of a file that its last holder has removed guards nothing
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    about = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "command": command}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(about).encode(), 0)
    return descriptor


def _read(descriptor: int) -> dict[str, Any]:
    """What a lock file says of its holder; nothing if it is being written."""
    try:
        return json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:
        return {}


def _remove_empty(folder: Path, made: Path | None) -> None:
    """Removes `folder` and those above it, up to the first one that this process made, as far as they are empty."""
    if made is None:
        return
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == made:
            return
