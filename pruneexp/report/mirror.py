"""A report's tables and charts in Weights & Biases, in the group of the sweep's runs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pruneexp.loggers.wandb import open_run
from pruneexp.report.build import Report
from pruneexp.report.chart_style import Chart
from pruneexp.report.finished import FinishedRun
from pruneexp.report.grid import Grid, make_grid
from pruneexp.report.options import lookup
from pruneexp.report.sources import Record, cell_records, run_records

PROJECT = "pruneexp"
"""Where the runs were mirrored to by default: configs/logger/wandb.yaml."""

LONGEST = 128  # characters of a group's name


class MirrorError(RuntimeError):
    """W&B did not take the report; one line."""


def mirror(report: Report, drawn: Sequence[Chart], *, project: str | None, mode: str, folder: Path) -> str:
    """Writes the report as one W&B run of the job type "report", and says where it is.

    For each table: what is in the terminal ("table"), the numbers ("cells") and the runs behind them ("runs"); each
    chart as an image. folder: where the SDK keeps its files.

    Raises:
        MirrorError: whatever W&B has to say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = report.runs
    try:
        opened = open_run(
            mode,
            project=project or _common(runs, "logger.project") or PROJECT,
            entity=_common(runs, "logger.entity"),
            group=group_of(runs),
            name=f"report of {group_of(runs)}",
            job_type="report",
            dir=str(folder),
            config={"runs": [run.hash for run in runs]},
        )
        if opened is None:
            return "W&B is switched off (WANDB_MODE)"
        _log(report, drawn, opened)
        opened.finish()
    except Exception as error:  # of the SDK, which has many
        raise MirrorError(f"W&B: {str(error).strip().partition(chr(10))[0] or type(error).__name__}") from error
    return opened.url or f"W&B, offline: wandb sync {Path(opened.dir).parent}"


def group_of(runs: Sequence[FinishedRun]) -> str:
    """The group that the runs have in W&B; of several sweeps the groups together."""
    groups = {str(run.config.get("group") or run.config.get("experiment_name")) for run in runs}
    return "+".join(sorted(groups))[:LONGEST]


def _log(report: Report, drawn: Sequence[Chart], opened: Any) -> None:
    import wandb

    media: dict[str, Any] = {}
    for number, table in enumerate(report.tables, 1):
        end = f"_{number}" if len(report.tables) > 1 else ""
        grid = make_grid(table)
        media[f"table{end}"] = wandb.Table(columns=[*_labels(grid), *grid.headings], data=_texts(grid))
        media[f"cells{end}"] = _wandb_table(cell_records(table))
        media[f"runs{end}"] = _wandb_table(run_records(table))
    with tempfile.TemporaryDirectory() as temporary:
        for chart in drawn:
            path = Path(temporary) / f"{chart.name}.png"
            path.write_bytes(chart.png())
            media[f"charts/{chart.name}"] = wandb.Image(str(path), caption=chart.caption)
        opened.log(media)


def _labels(grid: Grid) -> list[str]:
    return [label or "row" for label in grid.labels]


def _texts(grid: Grid) -> list[list[str]]:
    """The lines of the grid; a number with its footnote's source in brackets."""
    return [
        [*labels, *(f"{one.text} [{one.mark}]" if one.mark else one.text for one in numbers)]
        for labels, numbers in grid.rows
    ]


def _wandb_table(records: Sequence[Record]) -> Any:
    import wandb

    columns = list(records[0]) if records else []
    # Mixed numbers and texts in a column are refused unless allowed: a sparsity may be 0.9 or "found".
    return wandb.Table(columns=columns, data=[list(record.values()) for record in records], allow_mixed_types=True)


def _common(runs: Sequence[FinishedRun], name: str) -> str | None:
    """The value of an option, if all runs have the same."""
    values = {lookup(run.config, name) for run in runs}
    return next(iter(values)) if len(values) == 1 else None
