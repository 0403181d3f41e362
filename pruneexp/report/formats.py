"""A grid as Markdown, LaTeX or a table in a terminal."""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pruneexp.report.grid import Grid, Number

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def markdown(grid: Grid) -> str:
    """A pipe table under its title, with the notes as a list."""
    headings = [*grid.labels, *grid.headings]
    marks = ["---"] * len(grid.labels) + ["---:"] * len(grid.columns)
    rows = [[*labels, *(_with_mark(number, " [{}]") for number in numbers)] for labels, numbers in grid.rows]
    lines = [_pipes(headings), _pipes(marks, escape=False), *(_pipes(row) for row in rows)]
    notes = [f"- {markdown_text(note)}" for note in grid.notes]
    return "\n".join([f"**{markdown_text(grid.title)}**", "", *lines, "", *notes]) + "\n"


def markdown_text(text: str) -> str:
    """A text in which Markdown finds nothing to interpret; on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _pipes(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(markdown_text(cell) if escape else cell for cell in cells) + " |"


def latex(grid: Grid) -> str:
    """A table with booktabs' rules (`\\usepackage{booktabs}`), headings over several columns, the notes below."""
    width = len(grid.labels) + len(grid.columns)
    lines = [r"\begin{table}", r"  \centering", rf"  \caption{{{latex_text(grid.title)}}}"]
    lines += [rf"  \begin{{tabular}}{{{'l' * len(grid.labels)}{'r' * len(grid.columns)}}}", r"    \toprule"]
    lines += _latex_headings(grid)
    lines += [r"    \midrule"]
    for labels, numbers in grid.rows:
        cells = [*map(latex_text, labels), *(_with_mark(number, r"$^{{{}}}$", latex_text) for number in numbers)]
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += [r"    \bottomrule"]
    lines += [rf"    \multicolumn{{{width}}}{{l}}{{\footnotesize {latex_text(note)}}} \\" for note in grid.notes]
    return "\n".join([*lines, r"  \end{tabular}", r"\end{table}"]) + "\n"


def _latex_headings(grid: Grid) -> list[str]:
    """The lines of headings; a heading over several columns has a rule below it."""
    levels = len(grid.columns[0].levels) if grid.columns else 0
    lines = []
    for level in range(levels):
        last = level == levels - 1
        cells = [latex_text(label) if last else "" for label in grid.labels]
        rules, position = [], len(grid.labels) + 1
        for path, group in groupby(grid.columns, key=lambda column: column.levels[: level + 1]):
            size = len(list(group))
            cells.append(
                rf"\multicolumn{{{size}}}{{c}}{{{latex_text(path[-1])}}}" if size > 1 else latex_text(path[-1])
            )
            rules += [rf"\cmidrule(lr){{{position}-{position + size - 1}}}"] if size > 1 else []
            position += size
        lines.append(f"    {' & '.join(cells)} \\\\")
        lines += [f"    {' '.join(rules)}"] if rules and not last else []
    return lines


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """A text in which TeX finds nothing to interpret; a minus before a digit is one."""
    escaped = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"^-(?=\d)", "$-$", escaped)


def terminal(grid: Grid) -> "RichTable":
    """A table for `rich`, with as many lines of headings as there are levels."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, title=Text(grid.title, style="bold"), title_justify="left", pad_edge=False)
    for label in grid.labels:
        table.add_column(Text(label), overflow="fold")
    shown: list[str] = []
    for column in grid.columns:
        lines = [
            "" if shown and shown[: level + 1] == list(column.levels[: level + 1]) else text
            for level, text in enumerate(column.levels)
        ]
        shown = list(column.levels)
        table.add_column(Text("\n".join(lines)), justify="right", overflow="fold", vertical="bottom")
    for labels, numbers in grid.rows:
        table.add_row(*(Text(label) for label in labels), *(Text(_with_mark(number, " [{}]")) for number in numbers))
    return table


def _with_mark(number: Number, form: str, text: Callable[[str], str] = str) -> str:
    return text(number.text) + (form.format(number.mark) if number.mark else "")
