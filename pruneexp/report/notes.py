"""What a reader of a table must know: how often, what is missing, whose the papers' numbers are, what differs."""

from collections import Counter
from collections.abc import Sequence

from pruneexp.report.axes import cells_of, key_text
from pruneexp.report.finished import FinishedRun
from pruneexp.report.numbers import number
from pruneexp.report.options import differing
from pruneexp.report.references import CERTAINTIES
from pruneexp.report.scores import is_percentage
from pruneexp.report.tables import Statistic, Table

LISTED = 8  # lines of one kind; a sweep that has hardly begun lacks almost everything

COVERED = {
    "method": ("method", "pattern", "budget", "schedule", "sparsity", "exclude"),
    "sparsity": ("sparsity", "pattern.n", "pattern.m", "exclude"),
    "row": (),
    "column": (),
}
"""The options that go with an axis: another method has other settings by nature."""


def usual_n(table: Table) -> int:
    """How many runs most cells have."""
    counts = Counter(
        statistic.n
        for place in table.places
        for metric in table.metrics
        if (statistic := table.statistic(place, metric))
    )
    return max(counts, key=lambda n: (counts[n], n), default=0)


def footnotes(table: Table) -> dict[tuple[str, str], str]:
    """A letter for each source of papers' numbers that the table shows: (source, certainty) -> "a"."""
    shown = [table.reference(place, metric) for place in table.places for metric in table.metrics]
    keys = dict.fromkeys((one.source, one.certainty) for one in shown if one)
    return {key: _letter(number) for number, key in enumerate(keys)}


def notes(table: Table) -> list[str]:
    """All notes, the most important first."""
    return [_how(table), *dense_notes(table), *_sources(table), *_missing(table), *_uneven(table), *_commits(table)]


def _how(table: Table) -> str:
    n = usual_n(table)
    if n < 2:
        return "One run each." if n else "No run has finished."
    others = any(
        statistic.n != n
        for place in table.places
        for metric in table.metrics
        if (statistic := table.statistic(place, metric))
    )
    return f"Mean ± sample standard deviation over n = {n} seeds{', where no other n is given' if others else ''}."


def dense_notes(table: Table) -> list[str]:
    """The scores of the dense models that the runs started from, for each model and for each part of a data set."""
    runs = table.layout.all_runs
    if len({run.summary["headline"]["name"] for run in runs}) > 1:
        return []
    lines = []
    for own in cells_of(runs, ["model", "dataset"]).values():
        parts = [name for name in differing(run.decisions for run in own) if name.startswith("dataset.")]
        names = ["model", "dataset", *parts]
        for key, alike in cells_of(own, names).items():
            score = _dense_score(alike)
            lines += [f"Dense, {key_text(names, key)}: {score}."] if score else []
    return lines


def _dense_score(runs: Sequence[FinishedRun]) -> str | None:
    """The score of the dense models that runs of one kind started from, one for each seed; None if there is none."""
    by_seed = {(run.seed, dense) for run in runs if (dense := number(run, "dense.value")) is not None}
    if not by_seed:
        return None
    statistic = Statistic(tuple(value for _, value in sorted(by_seed)))
    name = runs[0].summary["headline"]["name"]
    scale, unit, decimals = (100, " %", 2) if is_percentage(name) else (1, "", 3)
    same = len({value for _, value in by_seed}) == 1
    spread = "" if same or statistic.std is None else f" ± {statistic.std * scale:.{decimals}f}"
    return f"{name} {statistic.mean * scale:.{decimals}f}{spread}{unit}{f' (n = {statistic.n})' if spread else ''}"


def _sources(table: Table) -> list[str]:
    lines = [
        f"[{letter}] {source}: {CERTAINTIES[certainty]}." for (source, certainty), letter in footnotes(table).items()
    ]
    return [*lines, "Difference: ours minus the paper's."] if lines else []


def _missing(table: Table) -> list[str]:
    """Cells without a run, with what is known of those that were planned, and cells with fewer than the others."""
    layout = table.layout
    empty, partial = [], []
    for place in table.places:
        found, planned = len(table.runs(place)), "; ".join(layout.pending.get(place, ()))
        why = f": {planned}" if planned else ""
        if not found and layout.expects(place):
            empty.append(f"Missing: {layout.text(place)}{why}.")
        elif 0 < found < (layout.seeds or 0):
            partial.append(f"{found} of {layout.seeds} seeds: {layout.text(place)}{why}.")
    return [
        *_listed(empty, f"{len(empty)} of {len(table.places)} cells have no run"),
        *_listed(partial, f"{len(partial)} cells have fewer than {layout.seeds} seeds"),
    ]


def _listed(lines: list[str], together: str) -> list[str]:
    """The lines, or one that counts them."""
    return lines if len(lines) <= LISTED else [f"{together}."]


def _uneven(table: Table) -> list[str]:
    """Rows whose settings are not the same in all columns, beyond what the columns say."""
    lines = []
    for row in table.layout.rows:
        runs = [run for column in table.layout.columns for run in table.runs((row, column))]
        names = [name for name in differing(run.decisions for run in runs) if not _is_covered(name, table)]
        if names and table.layout.axes.columns != ("column",):
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            label = ", ".join(table.layout.row_text(row))
            lines.append(f"Not the same in all columns of {label}: {shown}.")
    return lines


def _is_covered(name: str, table: Table) -> bool:
    axes = table.layout.axes.columns
    return any(
        name == prefix or name.startswith(f"{prefix}.") for axis in axes for prefix in COVERED.get(axis, (axis,))
    )


def _commits(table: Table) -> list[str]:
    """Cells whose runs were made by different code."""
    mixed = [place for place in table.places if len({run.commit for run in table.runs(place)}) > 1]
    if not mixed:
        return []
    commits = sorted({run.short_commit or "unknown" for place in mixed for run in table.runs(place)})
    return [f"Runs of different commits are averaged in {len(mixed)} of the cells: {', '.join(commits)}."]


def _letter(number: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
