"""The runs of a sweep as the process that started it sees them."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pruneexp.config import Config, dense_config, finished_summary
from pruneexp.leftovers import finished_earlier
from pruneexp.naming import run_folder
from pruneexp.sweeps.state import Board, progress

OVER = ("done", "failed")


@dataclass
class Entry:
    """One run: what it is, and how it stands.

    state: left (not begun, or interrupted), running, busy (another sweep has it), stopped, done or failed.
    """

    number: int
    label: str
    words: list[str]  # the command line of the run alone
    config: Config | None = None
    state: str = "left"
    error: str | None = None
    bad_input: bool = False  # failed because its options or data cannot work
    start: float | None = None  # seconds since 1970
    end: float | None = None
    note: str | None = None  # what a running one is at, besides training
    headline: dict[str, Any] | None = None
    attempts: int = 0
    trains_dense: bool = False  # its dense run was not there when the sweep began
    blind: bool = False  # its test score is not shown, since options are being chosen
    turn: int = 0  # those of a lower one are begun first
    head_start: float | None = None  # the part of the training that was behind it when it was first looked at

    @property
    def folder(self) -> Path | None:
        """The run's folder, None where the config is not valid."""
        return run_folder(self.config) if self.config else None

    def look(self) -> None:
        """Takes note of what is there before the sweep begins."""
        summary = finished_earlier(self.config)
        if summary is not None:
            self.state, self.headline = "done", summary["headline"]
        elif self.config["dense"] == "train":
            self.trains_dense = finished_summary(run_folder(dense_config(self.config))) is None

    def refresh(self, board: Board) -> bool:
        """Takes over what the job says of itself; whether its state is another one now."""
        said = board.job(self.number)
        before = self.state
        for key in ("state", "error", "bad_input", "start", "end", "note", "headline"):
            if key in said:
                setattr(self, key, said[key])
        return self.state != before

    def fraction(self) -> float:
        """The part of what it had to do when it was first asked that is done now, in [0, 1], as far as metrics say.

        An interrupted run goes on from its middle, and its dense run may be there by the time it begins.
        """
        behind = self._behind()
        if self.head_start is None:
            self.head_start = behind
        return (behind - self.head_start) / (1 - self.head_start) if self.head_start < behind else 0.0

    def _behind(self) -> float:
        """The part of the training that is behind it, in [0, 1]; its dense run counted."""
        epochs, done = self.config["epochs"], progress(self.folder).get("epoch", 0.0)
        if self.trains_dense:
            dense = dense_config(self.config)
            behind = progress(run_folder(dense)).get("epoch", 0.0)
            epochs, done = epochs + dense["epochs"], done + behind
        return min(1.0, done / epochs)

    def latest(self) -> str:
        """Where a running one is, in words."""
        row = progress(self.folder)
        if self.note:
            return self.note
        if not row:
            return "training dense" if self.trains_dense else "starting"
        return f"epoch {row['epoch']:.1f}/{self.config['epochs']:g}  {validation_of(row)}"

    def result(self) -> str:
        """What a finished one came to, in words."""
        if self.blind or not self.headline:
            return validation_of(progress(self.folder))
        return f"{self.headline['name']} {self.headline['value']:.4f}"


def validation_of(row: dict[str, Any]) -> str:
    """The first validation metric of a line of metrics, but for the loss, in words."""
    names = [key for key in row if key.startswith("validation") and not key.endswith("/loss")]
    return f"{names[0].replace('/', ' ')} {row[names[0]]:.4f}" if names else ""


def seconds_left(took: list[float], running: list[tuple[float, float]], waiting: int, at_once: int) -> float | None:
    """An estimate of the time until all is done, in seconds; None while nothing is known.

    took: seconds of the runs that are done. running: (seconds so far, fraction of it behind) of those that go on.
    waiting: the number of runs that have not begun. at_once: how many run side by side.
    """
    ends = [seconds / fraction for seconds, fraction in running if fraction > 0]
    if not took and not ends:
        return None
    each = mean(took or ends)
    rest = [
        seconds * (1 - fraction) / fraction if fraction > 0 else max(0.0, each - seconds)
        for seconds, fraction in running
    ]
    return max([(sum(rest) + waiting * each) / max(1, at_once), *rest])
