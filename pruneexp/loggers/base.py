"""Where metrics go besides the run folder, which is always the source of truth."""

from pathlib import Path
from typing import Any


class Logger:
    """Mirrors a run elsewhere. This one mirrors nowhere (`logger=none`). No method of a logger ever raises."""

    def start(self, *, name: str, group: str, folder: Path, config: dict[str, Any], resumed_from: int | None) -> None:
        """Opens the mirror of the run `name` in `folder`. resumed_from: the step it goes on from, None when new."""

    def log(self, metrics: dict[str, float]) -> None:
        """Mirrors one line of metrics.jsonl; it holds at least `step` and `sparsity/prunable`."""

    def finish(self, summary: dict[str, Any], folder: Path) -> None:
        """Mirrors the finished run: the summary, the files in `folder`."""

    def close(self, exit_code: int) -> None:
        """Closes the mirror, also after a failure. Safe to call twice and without `start`."""
