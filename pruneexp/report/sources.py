"""Where each number of a table comes from: one line for each run of a cell, and for each cell without one."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from pruneexp.report.finished import FinishedRun
from pruneexp.report.layout import Place
from pruneexp.report.metrics import Metric
from pruneexp.report.options import text_of
from pruneexp.report.tables import Table

Record = dict[str, Any]


def cell_records(table: Table) -> list[Record]:
    """The cells of a table in numbers as they are, fractions as fractions: for each of its metrics mean, standard
    deviation, n, the paper's number, and the hashes and commits of the runs."""
    return [_cell(table, place, metric) for place in table.places for metric in table.metrics]


def _cell(table: Table, place: Place, metric: Metric) -> Record:
    runs = [run for run in table.runs(place) if metric.value(run) is not None]
    statistic, paper = table.statistic(place, metric), table.reference(place, metric)
    return {
        **_keys(table, place),
        "metric": metric.name,
        "quantity": metric.quantity,
        "mean": statistic.mean if statistic else None,
        "std": statistic.std if statistic else None,
        "n": statistic.n if statistic else 0,
        "paper": paper.value if paper else None,
        "paper_bound": paper.bound if paper else None,
        "paper_std": paper.std if paper else None,
        "difference": table.difference(place, metric),
        "paper_source": paper.source if paper else None,
        "paper_certainty": paper.certainty if paper else None,
        "hashes": " ".join(run.hash for run in runs),
        "commits": " ".join(dict.fromkeys(run.commit for run in runs if run.commit)),
    }


def run_records(table: Table) -> list[Record]:
    """The runs behind a table: the cell of each, its numbers, seed, hash, commit and folder."""
    return [_run(table, place, run) for place in table.places for run in table.runs(place)]


def _run(table: Table, place: Place, run: FinishedRun) -> Record:
    return {
        **_keys(table, place),
        "seed": run.seed,
        **{metric.name: metric.value(run) for metric in table.metrics},
        "hash": run.hash,
        "commit": run.commit,
        "start": run.meta.get("start"),
        "folder": str(run.folder),
        "command": run.command,
    }


def _keys(table: Table, place: Place) -> Record:
    axes = table.layout.axes
    names = (*axes.rows, *axes.columns)
    return {name: _plain(name, value) for name, value in zip(names, (*place[0], *place[1]), strict=True)}


def _plain(name: str, value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else text_of(name, value)


def as_csv(records: list[Record]) -> str:
    """Records as CSV with a line of names; what is not known is empty.

    A text that a spreadsheet would take for a formula gets a quote before it.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in record.items()} for record in records)
    return file.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def as_json(tables: Sequence[Table]) -> str:
    """The cells and runs of tables as JSON."""
    records = [
        {"title": table.layout.title, "cells": cell_records(table), "runs": run_records(table)} for table in tables
    ]
    return json.dumps(records, indent=2) + "\n"
