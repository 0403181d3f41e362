"""Tables to the terminal and into files, and what was left out."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pruneexp.report.build import Report
from pruneexp.report.files import write_whole
from pruneexp.report.formats import latex, markdown, terminal
from pruneexp.report.grid import make_grid
from pruneexp.report.sources import as_csv, as_json, cell_records, run_records

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 1000
"""Characters of a table that goes into a file or another program."""

LISTED = 30
"""Folders of one kind that are listed."""


def show(report: Report, form: str, output: Path | None) -> list[Path]:
    """Prints the tables, or writes them into a file with their sources beside it; the files written."""
    if form == "terminal" and output is None:
        _print_tables(report)
        return []
    text = FORMS[form](report)
    if output is None:
        sys.stdout.write(text)
        return []
    write_whole(output, text)
    return [output, *write_sources(report, output.with_name(f"{output.stem}.sources.csv"))]


def write_sources(report: Report, path: Path) -> list[Path]:
    """Writes the runs behind the tables, as JSON where the file's name ends so, else as CSV."""
    if path.suffix == ".json":
        write_whole(path, _json(report))
    else:
        write_whole(path, "\n".join(as_csv(run_records(table)) for table in report.tables))
    return [path]


def print_left_out(report: Report, stream: TextIO) -> None:
    """Lists the folders that gave no number, by kind."""
    for kind in dict.fromkeys(one.kind for one in report.left_out):
        some = [one for one in report.left_out if one.kind == kind]
        print(f"{kind} ({len(some)}):", file=stream)
        for one in some[:LISTED]:
            print(f"  {_line(str(one.folder))}: {_line(one.reason)}", file=stream)
        if len(some) > LISTED:
            print(f"  and {len(some) - LISTED} more", file=stream)


def _line(text: str) -> str:
    """A text of a file's on one line, without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def _print_tables(report: Report) -> None:
    from rich.console import Console

    _print_on(Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH), report)


def _as_text(report: Report) -> str:
    import io

    from rich.console import Console

    file = io.StringIO()
    _print_on(Console(file=file, highlight=False, width=PLAIN_WIDTH), report)
    return file.getvalue()


def _print_on(console: "Console", report: Report) -> None:
    for table in report.tables:
        grid = make_grid(table)
        console.print(_line(grid.title), style="bold", markup=False, soft_wrap=True)
        for part in terminal(grid, console.width):
            console.print(part)
        for note in grid.notes:
            console.print(_line(note), markup=False, soft_wrap=True)
        console.print()


def _json(report: Report) -> str:
    return as_json(report.tables)


FORMS: dict[str, Callable[[Report], str]] = {
    "terminal": _as_text,
    "markdown": lambda report: "\n".join(markdown(make_grid(table)) for table in report.tables),
    "latex": lambda report: "\n".join(latex(make_grid(table)) for table in report.tables),
    "csv": lambda report: "\n".join(as_csv(cell_records(table)) for table in report.tables),
    "json": _json,
}
