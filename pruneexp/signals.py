"""Stopping at a step boundary when the user or a scheduler asks."""

import signal
from types import FrameType


class Interrupted(Exception):
    """Training stopped on a signal, after saving a checkpoint. `exit_code` is 128 + the signal, as shells have it."""

    def __init__(self, number: int, folder: object) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command resumes {folder}")
        self.exit_code = 128 + number


class StopRequest:
    """A context in which the first SIGINT or SIGTERM is noted in `received`, and a second one acts as it would."""

    def __enter__(self) -> "StopRequest":
        self.received: int | None = None
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: someone else handles signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, *exception: object) -> None:
        self._restore()
