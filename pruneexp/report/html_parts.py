"""Pieces of an HTML page. Every text from outside goes through `text`, so that none of it can be markup."""

import html
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from pruneexp.report.chart_style import Chart
from pruneexp.report.grid import Grid, Number
from pruneexp.report.options import DASH


def text(value: Any) -> str:
    """A value as text that HTML takes literally, in an element or in an attribute."""
    return html.escape(str(value), quote=True)


def grid_table(grid: Grid) -> str:
    """A table of results with its title, headings over several columns, and the notes."""
    body = "".join(
        f"<tr>{''.join(f'<th scope=row>{text(label)}</th>' for label in labels)}{''.join(map(_number, numbers))}</tr>"
        for labels, numbers in grid.rows
    )
    notes = "".join(f"<li>{text(note)}</li>" for note in grid.notes)
    return (
        f'<div class="wide"><table class="results"><caption>{text(grid.title)}</caption>'
        f"<thead>{_headings(grid)}</thead><tbody>{body}</tbody></table></div><ul class=notes>{notes}</ul>"
    )


def _headings(grid: Grid) -> str:
    levels = max(len(grid.columns[0].levels), 1) if grid.columns else 1
    lines = []
    for level in range(levels):
        cells = [f'<th rowspan="{levels}">{text(label)}</th>' for label in grid.labels] if level == 0 else []
        for path, group in groupby(grid.columns, key=lambda column: column.levels[: level + 1]):
            cells.append(f'<th colspan="{len(list(group))}">{text(path[-1] if path else "")}</th>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(lines)


def _number(number: Number) -> str:
    mark = f"<sup>{text(number.mark)}</sup>" if number.mark else ""
    return f"<td{' class=none' if number.text == DASH else ''}>{text(number.text)}{mark}</td>"


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{text(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(chart: Chart) -> str:
    """A chart as inline SVG with its caption."""
    return f"<figure>{inline_svg(chart)}<figcaption>{text(chart.caption)}.</figcaption></figure>"


def inline_svg(chart: Chart) -> str:
    """The SVG of a chart for the inside of a page: no prologue, no metadata, names that no other chart has."""
    svg = chart.svg().decode()
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    own = re.sub(r"\W", "_", chart.name)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{own}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{own}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{own}-\1)", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{text(chart.caption)}" ', 1)


def details(summary: str, content: str) -> str:
    """Content that is folded away."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def preformatted(content: str) -> str:
    """Lines as they are."""
    return f"<pre>{text(content)}</pre>"
