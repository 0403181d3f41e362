"""What a user sees of a search when it is over."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

SHOWN = 10


def show(path: Path) -> None:
    """Prints the best trials of each study. path: of results.json."""
    results = json.loads(path.read_text())
    console = Console(highlight=False)
    for study in results["studies"]:
        title = ", ".join(filter(None, (study["row"], study["column"])))
        table = Table(box=None, title=title or None, title_justify="left", padding=(0, 2, 0, 0))
        options = list(study["trials"][0]["options"])
        for heading in ("trial", *options, f"validation, {results['metric']}"):
            table.add_column(heading, justify="right")
        for trial in study["trials"][:SHOWN]:
            value = "failed" if trial["validation"] is None else f"{trial['validation']:.4f}"
            chosen = [_text(trial["options"].get(option)) for option in options]
            table.add_row(str(trial["trial"]), *chosen, value)
        console.print(table)
        if len(study["trials"]) > SHOWN:
            console.print(f"and {len(study['trials']) - SHOWN} more")
    console.print(f"search   {path}", soft_wrap=True)


def _text(value: float | int | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
