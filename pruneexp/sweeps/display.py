"""What a user sees of a sweep while it goes on: a live table in a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pruneexp.sweeps.entries import Entry, seconds_left

SHOWN = 12  # running ones in the live table at most
LIVE, PLAIN = 0.5, 1.0  # seconds between two looks


def duration(seconds: float) -> str:
    """A time in words of one size: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


class Display:
    """A context in which `look` is called every second and what it finds is shown.

    look: brings the entries up to date and returns those whose state has changed.
    """

    def __init__(self, entries: list[Entry], look: Callable[[], list[Entry]], *, at_once: int, visible: bool) -> None:
        # The jobs of this process write to their logs in place of sys.stdout; this is the terminal itself.
        self.console = Console(file=sys.stdout, highlight=False, quiet=not visible)
        self.entries, self.look, self.at_once = entries, look, at_once
        self.there_before = sum(entry.state == "done" for entry in entries)
        self.live = Live(console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.interactive = visible and self.console.is_terminal
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Display":
        counts = self.counts()
        earlier = f", {self.there_before} finished earlier" if self.there_before else ""
        at_once = f", {self.at_once} at a time" if self.at_once > 1 else ""
        self.console.print(f"{len(self.entries)} runs{earlier}, {counts['left']} to do{at_once}")
        if self.interactive:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.thread.join()
        self.update()
        if self.interactive:
            self.live.update(Text(self.line()), refresh=True)
            self.live.stop()
        else:
            self.console.print(self.line())

    def counts(self) -> Counter[str]:
        """How many entries are done, running, failed, left."""
        return Counter(
            entry.state if entry.state in ("done", "running", "failed") else "left" for entry in self.entries
        )

    def update(self) -> None:
        """Looks, and shows what has changed."""
        with self.lock:
            for entry in self.look():
                self._announce(entry)
            if self.interactive:
                self.live.update(self._table(), refresh=True)

    def line(self) -> str:
        """The sweep in one line."""
        counts = self.counts()
        parts = [f"{counts[state]} {state}" for state in ("done", "running", "failed", "left")]
        rest = self._seconds_left()
        return " · ".join(parts + ([f"about {duration(rest)} left"] if rest else []))

    def _watch(self) -> None:
        while not self.over.wait(LIVE if self.interactive else PLAIN):
            self.update()

    def _announce(self, entry: Entry) -> None:
        """A line for a run that is over, and where there is no live table also for one that begins."""
        if entry.state == "done":
            took = f"in {duration(entry.end - entry.start)}" if entry.start and entry.end else ""
            text = f"done     {entry.label}  {entry.result()} {took}"
        elif entry.state == "failed":
            text = f"failed   {entry.label}  {entry.error}"
        elif entry.state == "running" and not self.interactive:
            text = f"running  {entry.label}"
        elif entry.state == "busy":
            text = f"later    {entry.label}  {entry.error}"
        else:
            return
        if not self.interactive:
            text = f"{text.rstrip()}  ({self.line()})"
        self.console.print(Text(text), soft_wrap=True)

    def _seconds_left(self) -> float | None:
        counts, now = self.counts(), time.time()
        if not counts["running"] and not counts["left"]:
            return None
        took = [
            entry.end - entry.start for entry in self.entries if entry.state == "done" and entry.start and entry.end
        ]
        running = [(now - entry.start, entry.fraction()) for entry in self.entries if entry.state == "running"]
        return seconds_left(took, running, counts["left"], self.at_once)

    def _table(self) -> Group:
        counts = self.counts()
        over = counts["done"] + counts["failed"]
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        running = [entry for entry in self.entries if entry.state == "running"]
        for entry in running[:SHOWN]:
            table.add_row(Text(entry.label), Text(entry.latest()), duration(time.time() - entry.start))
        if len(running) > SHOWN:
            table.add_row(f"and {len(running) - SHOWN} more")
        total = Table.grid(padding=(0, 2, 0, 0))
        total.add_row(ProgressBar(total=len(self.entries), completed=over, width=24), Text(self.line()))
        return Group(table, total) if running else Group(total)
