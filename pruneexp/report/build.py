"""A report: the runs that were asked for, and the tables made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pruneexp.report.axes import chosen_axes, with_methods
from pruneexp.report.collect import find_runs
from pruneexp.report.finished import FinishedRun, LeftOut
from pruneexp.report.layout import Layout, by_axes, by_headline
from pruneexp.report.metrics import Metric, metric
from pruneexp.report.options import text_of, value_of
from pruneexp.report.references import FOLDER, Reference, load_references, read_references
from pruneexp.report.sweep import SUFFIX, Sweep, by_sweep, read_sweep
from pruneexp.report.tables import Table, make_table


@dataclass(frozen=True)
class Request:
    """What a user asks for. places: runs, folders, globs, or one sweep file. The others as the options of prune-report;
    empty where none was given."""

    places: Sequence[str]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    metrics: Sequence[str] = ()
    filters: Sequence[str] = ()
    ignored: Sequence[str] = ()
    references: Sequence[Path] = ()
    bundled: bool = True
    papers: bool = False


@dataclass(frozen=True)
class Report:
    """Tables with the runs behind them. dense: runs that prune nothing, where others do; their scores are the dense
    models' in the notes. left_out: folders without a number."""

    tables: list[Table]
    runs: list[FinishedRun]
    dense: list[FinishedRun] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    sweep: Sweep | None = None


def make_report(request: Request) -> Report:
    """The tables of a request; none where no run has finished.

    Raises:
        ValueError: a place, an option's name or a file is wrong, or runs would be averaged that must not be.
    """
    files = [place for place in request.places if place.endswith(SUFFIX)]
    if files and len(request.places) > 1:
        raise ValueError(f"{files[0]}: a sweep file stands alone; give it without other places")
    sweep = read_sweep(Path(files[0])) if files else None
    found = sweep.found if sweep else find_runs(request.places)
    runs = [_ignoring(run, request.ignored) for run in filtered(found.runs, request.filters)]
    if not runs:
        return Report([], [], left_out=found.left_out, sweep=sweep)
    if sweep and sweep.has_labels and not (request.rows or request.columns or request.filters or request.ignored):
        layouts, dense = by_headline(by_sweep(sweep)), []
    else:
        layouts, dense = _by_options(runs, request)
    references = load_references(request.references, bundled=request.bundled)
    tables = []
    for layout, metrics in zip(layouts, _metrics(layouts, request), strict=True):
        if metrics:
            preferred = _preferred(layout, references)
            tables.append(make_table(layout, metrics, preferred, papers=request.papers))
    return Report(tables, [run for run in runs if run not in dense], dense, found.left_out, sweep)


def _by_options(runs: list[FinishedRun], request: Request) -> tuple[list[Layout], list[FinishedRun]]:
    """A layout for each headline of the runs, and the dense runs that others stand beside."""
    dense = [run for run in runs if run.is_dense]
    pruned = [run for run in runs if not run.is_dense]
    if not pruned or any(text.startswith("method=dense") for text in request.filters):
        pruned, dense = runs, []
    layouts = []
    for name in dict.fromkeys(run.summary["headline"]["name"] for run in pruned):
        some = [run for run in pruned if run.summary["headline"]["name"] == name]
        axes = chosen_axes(some, request.rows, request.columns)
        given = request.rows or request.columns or not request.papers
        layouts.append(by_axes(some, axes if given else with_methods(axes)))
    return layouts, dense


def _metrics(layouts: Sequence[Layout], request: Request) -> list[list[Metric]]:
    """The metrics of each layout: those asked for that its runs have. ValueError for one that none has."""
    found: list[list[Metric]] = [[] for _ in layouts]
    for number in range(max(len(request.metrics), 1)):
        errors = []
        for layout, metrics in zip(layouts, found, strict=True):
            own = f"test.{layout.metric}" if layout.metric else "headline"
            try:
                metrics.append(metric(request.metrics[number] if request.metrics else own, layout.all_runs))
            except ValueError as error:
                errors.append(error)
        if len(errors) == len(layouts):
            raise errors[0]
    return found


def _preferred(layout: Layout, references: list[Reference]) -> list[Reference]:
    """The papers' numbers, first those of users' files, then those of the file that the table names."""
    if not layout.reference:
        return references
    named = FOLDER / f"{layout.reference}.yaml"
    first = read_references(named if named.is_file() else Path(layout.reference))
    own = [reference for reference in references if reference.file.parent != FOLDER]
    return [*own, *first, *(reference for reference in references if reference not in (*own, *first))]


def filtered(runs: Sequence[FinishedRun], filters: Sequence[str]) -> list[FinishedRun]:
    """The runs that pass all filters: name=value, several values with commas, name!=value.

    Raises:
        ValueError: a filter is no such text, or no run passes it.
    """
    kept = list(runs)
    for text in filters:
        name, equals, values = text.partition("=")
        wanted = {value.strip() for value in values.split(",")}
        if not equals or not name.strip("!"):
            raise ValueError(f"--filter {text}: want name=value, name=value,value or name!=value")
        option = name.removesuffix("!")
        passing = [run for run in kept if bool(_texts(run, option) & wanted) != name.endswith("!")]
        if not passing:
            there = ", ".join(sorted({text_of("", value_of(run.config, option)) for run in kept})) or "no run at all"
            raise ValueError(f"--filter {text}: leaves no run; {option} is {there}")
        kept = passing
    return kept


def _texts(run: FinishedRun, name: str) -> set[str]:
    """The ways to write a run's value: 0.9, 90 % and, for a dash, null."""
    value = value_of(run.config, name)
    return {str(value), text_of("", value), text_of(name, value), *(("null",) if value is None else ())}


def _ignoring(run: FinishedRun, names: Sequence[str]) -> FinishedRun:
    """The run as one without these options."""
    if not names:
        return run
    decisions = {
        name: value
        for name, value in run.decisions.items()
        if not any(name == ignored or name.startswith(f"{ignored}.") for ignored in names)
    }
    return replace(run, decisions=decisions)
