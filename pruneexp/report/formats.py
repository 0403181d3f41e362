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
    lines = [r"\begin{table}", r"  \centering", rf"  \caption{{{latex_text(grid.title)}}}"]
    lines += [rf"  \begin{{tabular}}{{{'l' * len(grid.labels)}{'r' * len(grid.columns)}}}", r"    \toprule"]
    lines += _latex_headings(grid)
    lines += [r"    \midrule"]
    for labels, numbers in grid.rows:
        cells = [*map(latex_text, labels), *(_with_mark(number, r"$^{{{}}}$", latex_text) for number in numbers)]
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    notes = " \\\\\n".join(f"  {latex_text(note)}" for note in grid.notes)
    return "\n".join([*lines, r"  \par\medskip\footnotesize\raggedright", notes, r"\end{table}"]) + "\n"


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
    "[": "{[}",  # after a line's \\\\ it would begin an option
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """A text in which TeX finds nothing to interpret; a minus before a digit is one."""
    escaped = "".join(LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"^-(?=\d)", "$-$", escaped)


def terminal(grid: Grid, width: int) -> "list[RichTable]":
    """Tables for `rich`, without the title: one, or as many as show all columns in a terminal of so many characters."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    labels = [label.replace(".", ".\n") for label in grid.labels]
    tables = []
    for block in _blocks(grid, width):
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for label in labels:
            table.add_column(Text(label), no_wrap=True, vertical="bottom")
        shown: tuple[str, ...] = ()
        for index in block:
            levels = grid.columns[index].levels
            repeated = [shown[: level + 1] == levels[: level + 1] for level in range(len(levels))]
            lines = ["" if again else text for text, again in zip(levels, repeated, strict=True)]
            table.add_column(Text("\n".join(lines)), justify="right", no_wrap=True)
            shown = levels
        for texts, numbers in grid.rows:
            cells = (Text(_with_mark(numbers[index], " [{}]")) for index in block)
            table.add_row(*map(Text, texts), *cells)
        tables.append(table)
    return tables


GAP = 3
"""Characters between two columns in a terminal."""


def _blocks(grid: Grid, width: int) -> list[list[int]]:
    """The columns of numbers, by their place, that fit beside the labels into a terminal; at least one at a time."""
    labels = [max(len(texts[i]) for texts, _ in grid.rows) for i in range(len(grid.labels))] if grid.rows else []
    left = sum(max(size, len(label)) + GAP for size, label in zip(labels, grid.labels, strict=False))
    blocks: list[list[int]] = [[]]
    used = left
    for index, column in enumerate(grid.columns):
        texts = [_with_mark(numbers[index], " [{}]") for _, numbers in grid.rows]
        size = max(map(len, (*column.levels, *texts)), default=0) + GAP
        if blocks[-1] and used + size > width:
            blocks.append([])
            used = left
        blocks[-1].append(index)
        used += size
    return blocks


def _with_mark(number: Number, form: str, text: Callable[[str], str] = str) -> str:
    return text(number.text) + (form.format(number.mark) if number.mark else "")
