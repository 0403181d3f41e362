"""`prune-report`: the command line that turns runs into tables, plots and pages.

torch is imported for --verify only, and all else inside functions, so that `prune-report --help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pruneexp.report.build import Report, Request

EPILOG = """\
examples:
  prune-report outputs/default
  prune-report outputs/default --metric headline,macs.ratio --format latex --output table.tex
  prune-report 'outputs/*/pdp-*' --rows method.tau --columns sparsity --filter model=resnet20
  prune-report outputs/pdp_cifar10/pdp_cifar10.sweep.json --html report.html --plots plots
  prune-report --verify outputs/default/*

Rows and columns are what differs between the runs, or options named as for prune-run: method, sparsity, pattern,
method.tau, dataset.fraction ... Runs that differ only in their seed make one cell; others are never averaged.
Exit codes: 0 done, 2 bad input or no finished run, 1 a failure, or a difference that --verify found.
"""

FORMATS = ("terminal", "markdown", "latex", "csv", "json")
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "terminal"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Reports on runs. arguments: in place of the command line's."""
    options = _parser().parse_args(arguments)
    try:
        if options.verify:
            raise SystemExit(_verify(options))
        _report(options)
    except BrokenPipeError:  # as when a pager is closed
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        _exit(1, f"{error.strerror or error}: {error.filename or 'while writing'}")


def _report(options: argparse.Namespace) -> None:
    from pruneexp.report.build import make_report
    from pruneexp.report.output import print_left_out, show

    form = options.format or SUFFIXES.get(options.output.suffix if options.output else "", "terminal")
    try:
        report = make_report(_request(options))
    except ValueError as error:
        _exit(2, str(error))
    if not report.tables:
        print_left_out(report, sys.stdout)
        _exit(2, f"{' '.join(options.places)}: no run there has finished")
    written = show(report, form, options.output)
    written += _files(report, options)
    to_files = form == "terminal" or options.output
    print_left_out(report, sys.stdout if to_files else sys.stderr)
    for path in written:
        print(f"wrote {path}", file=sys.stdout if to_files else sys.stderr)


def _verify(options: argparse.Namespace) -> int:
    """Recomputes the summaries of the runs at the places, and prints what differs: 0, 1 on a difference, 2 for none."""
    from pruneexp.verification.command import main as verify

    return verify([Path(place) for place in options.places], trust=options.trust)


def _files(report: "Report", options: argparse.Namespace) -> list[Path]:
    """Writes what else was asked for; the files."""
    written: list[Path] = []
    if options.sources:
        from pruneexp.report.output import write_sources

        written += write_sources(report, options.sources)
    if not (options.plots or options.html or options.wandb):
        return written
    from pruneexp.report.charts import charts, write_charts

    drawn = charts(report)
    if options.plots:
        written += write_charts(drawn, options.plots)
    if options.html:
        from pruneexp.report.page import write_page

        written += write_page(report, drawn, options.html)
    if options.wandb:
        from pruneexp.report.mirror import MirrorError, mirror

        project, mode = options.wandb_project, options.wandb_mode
        try:
            place = mirror(report, drawn, project=project, mode=mode, folder=_folder(options))
        except MirrorError as error:
            _exit(1, str(error))
        print(place, file=sys.stderr)
    return written


def _folder(options: argparse.Namespace) -> Path:
    """Where W&B keeps its files: beside what else is written, or here."""
    beside = options.html or options.output
    return options.plots or (beside.parent if beside else Path())


def _request(options: argparse.Namespace) -> "Request":
    from pruneexp.report.build import Request

    return Request(
        places=options.places,
        rows=_names(options.rows),
        columns=_names(options.columns),
        metrics=_names(options.metric),
        filters=options.filter,
        ignored=_names(options.ignore),
        references=options.references,
        bundled=not options.no_references,
        papers=options.papers,
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prune-report",
        description="Tables and plots of finished runs: mean, deviation and n over seeds, beside the papers' numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("places", nargs="+", metavar="PLACE", help="a run, a folder of runs, a glob in quotes, or a .sweep.json file")
    checks = parser.add_argument_group("instead of a table")
    add = checks.add_argument
    add("--verify", action="store_true", help="recompute every number of these runs' summaries from their files")
    add("--trust", action="append", default=[], metavar="CLASS", help="with --verify: as for prune-export")
    table = parser.add_argument_group("the table")
    add = table.add_argument
    add("--rows", metavar="A,B", help="options that make rows; what differs between the runs by default")
    add("--columns", metavar="A,B", help="options that make columns")
    add(
        "--metric",
        metavar="A,B",
        help="headline (default), drop, sparsity.prunable, macs.ratio, test.f1, latency.1 ...",
    )
    add("--filter", action="append", default=[], metavar="A=X,Y", help="only runs with these values; A!=X without them")
    add(
        "--ignore",
        metavar="A,B",
        help="options that may differ within a cell, as a dense= that is another for each seed",
    )
    papers = parser.add_argument_group("the papers' numbers")
    add = papers.add_argument
    add(
        "--references",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="also the numbers in this YAML file",
    )
    add("--no-references", action="store_true", help="without the numbers that come with the package")
    add("--papers", action="store_true", help="also rows of methods that only papers have")
    output = parser.add_argument_group("the output")
    add = output.add_argument
    add("--format", choices=FORMATS, help="of the table; by the ending of --output, or terminal")
    add("--output", type=Path, metavar="FILE", help="the table into this file, and its sources into FILE.sources.csv")
    add("--sources", type=Path, metavar="FILE", help="hash, commit and folder of each run, as .csv or .json")
    add("--plots", type=Path, metavar="DIR", help="all plots that the runs allow, as PNG and SVG")
    add("--html", type=Path, metavar="FILE", help="one page with tables, plots, configs, commands and environment")
    add("--wandb", action="store_true", help="tables and plots to Weights & Biases too, beside the sweep's runs")
    add("--wandb-project", metavar="NAME", help="the runs' own by default")
    add("--wandb-mode", choices=("auto", "online", "offline"), default="auto", help="auto: offline without a key")
    return parser


def _exit(code: int, message: str) -> NoReturn:
    print(f"prune-report: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
