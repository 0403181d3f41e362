"""What a user sees while a run goes on."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)


def setup_logging(*, visible: bool) -> None:
    """Sends the package's log lines to the terminal, above the progress bar; warnings only where not `visible`."""
    logger = logging.getLogger("pruneexp")
    logger.setLevel(logging.INFO if visible else logging.WARNING)
    logger.handlers = [RichHandler(console=console, show_time=False, show_path=False, show_level=False)]


class Bar:
    """A progress bar over steps with a line of the latest numbers; plain lines where there is no terminal."""

    def __init__(self, progress: Progress | None, description: str, total: int, done: int) -> None:
        self.progress = progress
        self.description = description
        self.total = total
        self.done = done
        self.task = progress.add_task(description, total=total, completed=done, numbers="") if progress else None

    def advance(self) -> None:
        """One step more is done."""
        self.done += 1
        if self.progress:
            self.progress.advance(self.task)

    def report(self, numbers: str) -> None:
        """Shows the latest numbers."""
        if self.progress:
            self.progress.update(self.task, numbers=numbers)
        else:
            console.print(f"{self.description} {self.done}/{self.total} {numbers}", soft_wrap=True)


@contextmanager
def bar(description: str, total: int, done: int = 0, *, visible: bool = True) -> Iterator[Bar]:
    """A context with a running bar; `done` steps are behind it already."""
    if not visible:
        yield Bar(_Silent(), description, total, done)
        return
    if not sys.stdout.isatty():
        yield Bar(None, description, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, description, total, done)


class _Silent:
    """Takes the calls of a progress bar and shows nothing."""

    def add_task(self, *args: object, **fields: object) -> int:
        return 0

    def advance(self, task: int) -> None: ...

    def update(self, task: int, **fields: object) -> None: ...
