"""Runs as points and lines of a chart: repetitions are one point, points that differ in their sparsity one line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruneexp.report.axes import NATURAL, Key, cells_of, key_of, key_text, sorted_keys, telling_apart
from pruneexp.report.chart_style import STYLES
from pruneexp.report.finished import FinishedRun
from pruneexp.report.options import value_of
from pruneexp.report.tables import Statistic


@dataclass(frozen=True)
class Point:
    """The runs of one cell, which differ in their seed only."""

    label: str
    runs: Sequence[FinishedRun]

    def statistic(self, value: Callable[[FinishedRun], float | None]) -> Statistic | None:
        """A number over the runs; None where none has it."""
        known = tuple(number for run in self.runs if (number := value(run)) is not None)
        return Statistic(known) if known else None


@dataclass(frozen=True)
class Share:
    """The points of one of several charts. title, name: what sets it apart from the others, "" for a single one."""

    title: str
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Series:
    """Points with one label. joined: whether a line through them means something."""

    label: str
    points: Sequence[Point]
    joined: bool = True


def panels(runs: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """The runs that can be compared in one chart, each with a title: those of one headline, model and data set."""
    names = ["model", "dataset"]
    found = []
    for key, some in cells_of(runs, names).items():
        for headline in dict.fromkeys(run.summary["headline"]["name"] for run in some):
            own = [run for run in some if run.summary["headline"]["name"] == headline]
            found.append((key_text(names, key).replace(", ", " on "), own))
    return found


def series_of(runs: Sequence[FinishedRun]) -> list[Series]:
    """The lines of a chart: runs that differ only in sparsity, seed and, where the method finds its sparsity itself, in
    what steers it. More than can be told apart become one series for each method, and are not joined."""
    names = telling_apart(runs)
    apart = [name for name in names if name != "sparsity"]
    lines: dict[Key, list[FinishedRun]] = {}
    for run in runs:
        lines.setdefault(_line(run, apart), []).append(run)
    joined = len(lines) <= len(STYLES)
    if not joined:
        apart = ["method"]
        lines = cells_of(runs, apart)
    return [
        Series(_label(apart, key, lines[key]), _points(lines[key], names), joined) for key in sorted_keys(list(lines))
    ]


def shares(runs: Sequence[FinishedRun], *, together: int) -> list[Share]:
    """The points of runs in charts that can be read: `together` of all sparsities in one, or one for each sparsity.

    None has more points than there are looks.
    """
    points = [point for one in series_of(runs) for point in one.points] if runs else []
    if len(points) <= together:
        return [Share("", "", points)] if points else []
    found = []
    cells = cells_of(runs, ["sparsity"])
    for key in sorted_keys(list(cells)):
        text = key_text(["sparsity"], key)
        some = [point for one in series_of(cells[key]) for point in one.points]
        for start in range(0, len(some), len(STYLES)):
            number = f"_{start // len(STYLES) + 1}" if len(some) > len(STYLES) else ""
            name = f"_{''.join(c if c.isalnum() or c == '.' else '' for c in text)}{number}"
            found.append(Share(f", sparsity {text}", name, some[start : start + len(STYLES)]))
    return found


def _line(run: FinishedRun, names: Sequence[str]) -> Key:
    """The values that say which line a run is on."""
    found = value_of(run.config, "sparsity") == "found"
    values = zip(names, key_of(run, names), strict=True)
    return tuple(
        None if (found and name not in NATURAL) or _is_groups(name, value) else value for name, value in values
    )


def _is_groups(name: str, value: object) -> bool:
    """Whether a value is N:M, which says no more than a sparsity does."""
    return name == "pattern" and isinstance(value, str) and ":" in value


def _label(names: Sequence[str], key: Key, runs: Sequence[FinishedRun], alone: Sequence[str] = ("method",)) -> str:
    """What tells runs from the others; where nothing does, their values on the axes `alone`."""
    return key_text(names, key) or key_text(alone, key_of(runs[0], alone))


def _points(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[Point]:
    cells = cells_of(runs, names)
    return [
        Point(_label(names, key, cells[key], ("method", "sparsity")), cells[key]) for key in sorted_keys(list(cells))
    ]
