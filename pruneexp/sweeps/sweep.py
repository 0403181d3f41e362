"""A sweep: which runs are started when, what becomes of those that others have or that die, and the sweep file."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from pruneexp.sweeps.cells import Cell
from pruneexp.sweeps.display import Display
from pruneexp.sweeps.entries import OVER, Entry
from pruneexp.sweeps.state import Board, Kind, Stopped, is_alive

ATTEMPTS = 2
"""So often a run is begun whose process died: when one is killed, the launcher ends those beside it, too."""

Launch = Callable[[Sequence[Entry]], None]
"""Starts jobs for these entries and comes back when all have ended; raises where a process died."""


class Sweep:
    """Runs entries until each is done or failed.

    kind: where the launcher runs jobs. record: called whenever the state of an entry has changed, to write the sweep
    file.
    """

    def __init__(
        self,
        entries: list[Entry],
        launch: Launch,
        board: Board,
        *,
        kind: Kind,
        fail_fast: bool,
        record: Callable[[], None],
    ) -> None:
        self.entries, self.launch, self.board = entries, launch, board
        self.kind, self.fail_fast, self.record = kind, fail_fast, record
        self.exit_code: int | None = None  # of the signal that stopped it
        self.closed = False  # no further run is to be begun

    def run(self, *, at_once: int, visible: bool) -> None:
        """Runs what is left. Runs that another sweep has come last, and are waited for.

        Raises:
            Stopped: a signal came; the jobs of this machine have saved where they are.
        """
        self._check_fail_fast()
        with Display(self.entries, self._look, at_once=at_once, visible=visible) as self.display:
            left = [entry for entry in self.entries if entry.state not in OVER]
            self._run_all(sorted(left, key=lambda entry: entry.turn))
            self.board.tell(wait=True)
            self._run_all([entry for entry in self.entries if entry.state == "busy"])
        if self.exit_code is not None:
            raise Stopped(self.exit_code)

    def _run_all(self, waiting: list[Entry]) -> None:
        for entry in waiting:
            self.board.forget(entry.number)
            entry.state, entry.error, entry.bad_input = "left", None, False
        while waiting and not self.closed:
            batch = waiting[:1] if self.kind == "here" else waiting
            death = self._launch(batch)
            self.display.update()
            self._bury(batch, death)
            self.record()
            for entry in batch:
                if entry.state == "stopped":
                    self.closed, self.exit_code = True, self.board.job(entry.number)["exit_code"]
            waiting = [entry for entry in waiting if entry.state == "left"]

    def _launch(self, batch: list[Entry]) -> Exception | None:
        """Launches jobs and waits for them; the error by which the launcher says that a process died, if one did."""
        if self.kind == "here":
            self.launch(batch)
            return None
        with self._signals() if self.kind == "processes" else nullcontext():
            try:
                self.launch(batch)
            except Exception as error:
                return error
        return None

    def _look(self) -> list[Entry]:
        changed = [entry for entry in self.entries if entry.state not in OVER and entry.refresh(self.board)]
        if changed:
            self.record()
            self._check_fail_fast()
        return changed

    def _check_fail_fast(self) -> None:
        if self.fail_fast and not self.closed and any(entry.state == "failed" for entry in self.entries):
            self.closed = True
            self.board.tell(stop=True)

    def _bury(self, batch: list[Entry], death: Exception | None) -> None:
        """Settles what becomes of runs whose job ended without a word."""
        reason = f" ({_last_line(death)})" if death else ""
        begun = [entry for entry in batch if entry.state == "running"]
        for entry in begun:
            self.board.forget(entry.number)
            entry.attempts += 1
            if self.kind == "cluster":
                entry.state, entry.error = "failed", f"its job was lost sight of{reason}; the same command looks again"
            elif entry.attempts < ATTEMPTS or self.closed:
                entry.state = "left"
            else:
                entry.state, entry.error = "failed", f"its process died, killed or out of memory{reason}"
        if death and not begun:  # no job got as far as saying so
            for entry in batch:
                if entry.state == "left":
                    entry.state, entry.error = "failed", f"its job could not be started{reason}"
        if death and self.kind == "cluster":  # what has not begun may be waiting in the cluster's queue
            self.closed = True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """A context in which the first SIGINT or SIGTERM lets the jobs of this machine save and stop; a second kills.

        A terminal sends SIGINT to the jobs as well; SIGTERM comes to this process alone and is passed on.
        """
        previous = {}

        def pass_on(number: int, frame: FrameType | None) -> None:
            self.closed, self.exit_code = True, 128 + number
            self.board.tell(stop=True)
            for name, handler in previous.items():
                signal.signal(name, handler)
            if number == signal.SIGTERM:
                for said in (self.board.job(entry.number) for entry in self.entries if entry.state == "running"):
                    if said.get("host") == socket.gethostname() and is_alive(said["pid"]):
                        os.kill(said["pid"], signal.SIGTERM)

        for name in (signal.SIGINT, signal.SIGTERM):
            previous[name] = signal.signal(name, pass_on)
        try:
            yield
        finally:
            for name, handler in previous.items():
                signal.signal(name, handler)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def sweep_file(
    entries: list[Entry], cells: Sequence[Cell], index: Sequence[int], folder: Path, about: dict[str, Any]
) -> dict[str, Any]:
    """What the sweep file says. index: of each cell's entry. folder: of the file."""
    runs = []
    for cell, number in zip(cells, index, strict=True):
        entry = entries[number]
        place = os.path.relpath(entry.folder, folder) if entry.folder else None
        state = entry.state if entry.state in ("done", "running", "failed") else "left"
        run = {"row": cell.row.label, "column": cell.column.label, "folder": place}
        run["seed"] = entry.config["seed"] if entry.config else cell.seed
        run |= {"overrides": entry.words, "state": state, "error": entry.error if state == "failed" else None}
        runs.append(run)
    return {**about, "runs": runs}
