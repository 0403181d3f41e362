"""All charts of a report, and their files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pruneexp.report.build import Report
from pruneexp.report.chart_style import Chart
from pruneexp.report.encoder_charts import encoder_charts
from pruneexp.report.files import write_whole
from pruneexp.report.layer_charts import layer_charts
from pruneexp.report.score_charts import score_charts
from pruneexp.report.series import panels
from pruneexp.report.training_charts import schedule_charts


def charts(report: Report) -> list[Chart]:
    """The charts that the runs allow, for each model and data set among them."""
    runs = [run for run in report.runs if not run.is_dense] or report.runs
    found = panels(runs)
    drawn = []
    for title, some in found:
        own = [
            *score_charts(some, title, report.tables),
            *schedule_charts(some, title),
            *layer_charts(some, title),
            *encoder_charts(some, title),
        ]
        before = f"{_file_name(title)}_" if len(found) > 1 else ""
        drawn += [replace(chart, name=before + chart.name) for chart in own]
    return _distinct(drawn)


def write_charts(drawn: Sequence[Chart], folder: Path) -> list[Path]:
    """Writes charts as PNG and SVG; the files."""
    written = []
    for chart in drawn:
        for form, content in (("png", chart.png()), ("svg", chart.svg())):
            path = folder / f"{chart.name}.{form}"
            write_whole(path, content)
            written.append(path)
    return written


def _file_name(text: str) -> str:
    return "".join(character if character.isalnum() or character in ".-" else "_" for character in text)


def _distinct(drawn: Sequence[Chart]) -> list[Chart]:
    """The charts with names that no other has, also where a file system takes a for A."""
    used: dict[str, int] = {}
    result = []
    for chart in drawn:
        count = used[chart.name.lower()] = used.get(chart.name.lower(), 0) + 1
        result.append(chart if count == 1 else replace(chart, name=f"{chart.name}_{count}"))
    return result
