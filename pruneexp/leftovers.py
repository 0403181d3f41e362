"""What a killed process leaves in a run's folder, and how it goes away again."""

from pathlib import Path

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def clear_leftovers(folder: Path) -> None:
    """Removes files that were being written when a process died, and the checkpoints of a run that is finished.

    For a process that may write in the folder, which no other one then does.
    """
    for path in folder.glob(".*.tmp"):
        if path.is_file():  # a folder is an export under way
            path.unlink(missing_ok=True)
    if (folder / "summary.json").is_file():
        for name in (CHECKPOINT, PREVIOUS):
            (folder / name).unlink(missing_ok=True)
