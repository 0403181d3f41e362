"""A report as one HTML page that needs nothing else: tables, charts, runs, options, commands, environment."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from pruneexp.report.build import Report
from pruneexp.report.chart_style import Chart
from pruneexp.report.files import write_whole
from pruneexp.report.finished import FinishedRun
from pruneexp.report.grid import make_grid
from pruneexp.report.html_parts import details, figure, grid_table, plain_table, preformatted, text
from pruneexp.report.numbers import number
from pruneexp.report.options import DASH, differing, flat, text_of, value_of
from pruneexp.report.scores import score_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.6rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
th, td { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
.results td { text-align: right; white-space: nowrap; } .results thead th { text-align: center; }
thead th { border-bottom: 1.5px solid #555; } .none { color: #888; } .notes { font-size: 0.85rem; color: #333; }
.wide { overflow-x: auto; } pre { overflow-x: auto; background: #f5f5f5; padding: 0.6rem; font-size: 0.8rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1.2rem; }
figure { margin: 0; } figure svg { max-width: 100%; height: auto; } figcaption { font-size: 0.82rem; color: #333; }
summary { cursor: pointer; margin: 0.3rem 0; }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing, and run nothing."""


def write_page(report: Report, drawn: Sequence[Chart], path: Path) -> list[Path]:
    """Writes the page; its path."""
    write_whole(path, page(report, drawn))
    return [path]


def page(report: Report, drawn: Sequence[Chart]) -> str:
    """The whole page, with these charts."""
    title = _title(report)
    sections = {
        "Results": "".join(grid_table(make_grid(table)) for table in report.tables),
        "Charts": f'<div class="charts">{"".join(map(figure, drawn))}</div>',
        "Left out": _left_out(report),
        "Runs": _runs(report),
        "Options": _options(report),
        "Commands": _commands(report),
        "Environment": _environment(report),
    }
    body = "".join(f"<h2>{text(name)}</h2>{content}" for name, content in sections.items() if content)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{text(title)}</h1><p>{text(_subtitle(report))}</p>{body}</body></html>\n"
    )


def _title(report: Report) -> str:
    titled = next((table.layout.title for table in report.tables if table.layout.title), "")
    models, datasets = (_together(report, name) for name in ("model", "dataset"))
    return titled or f"{models} on {datasets}"


def _together(report: Report, name: str) -> str:
    return ", ".join(sorted({text_of(name, value_of(run.config, name)) for run in report.runs}))


def _subtitle(report: Report) -> str:
    sources = dict.fromkeys(table.layout.source for table in report.tables if table.layout.source)
    made = time.strftime("%Y-%m-%d %H:%M %Z")
    return ". ".join([*sources, f"{len(report.runs)} finished runs, read {made}."])


def _left_out(report: Report) -> str:
    return (
        plain_table(("", "folder", "why"), [(one.kind, one.folder, one.reason) for one in report.left_out])
        if report.left_out
        else ""
    )


def _runs(report: Report) -> str:
    """One line for each run: what it is, its score, where it is, what code made it."""
    rows = []
    for run in _every(report):
        headline = run.summary["headline"]
        value, seconds = number(run, "headline.value"), number(run, "wall_seconds")
        rows.append(
            (
                run.hash,
                *(text_of(name, value_of(run.config, name)) for name in ("method", "model", "dataset", "sparsity")),
                run.seed,
                DASH if value is None else f"{headline['name']} {score_text(headline['name'], value)}",
                f"{100 * run.summary['sparsity']['prunable']:.2f} %",
                DASH if seconds is None else f"{seconds:.0f} s",
                run.short_commit or DASH,
                run.meta.get("start", DASH),
                run.folder,
            )
        )
    headings = (
        "hash",
        "method",
        "model",
        "dataset",
        "target",
        "seed",
        "score",
        "sparsity",
        "time",
        "commit",
        "start",
        "folder",
    )
    return plain_table(headings, rows)


def _options(report: Report) -> str:
    """Which options differ, and the whole config of one run of each kind."""
    runs = _every(report)
    names = differing(run.decisions for run in runs)
    table = plain_table(
        ("hash", *names), [(run.hash, *(text_of("", value_of(run.config, name)) for name in names)) for run in runs]
    )
    kinds = _grouped(runs, lambda run: repr(sorted(run.decisions.items(), key=str)))
    configs = "".join(
        details(
            f"config.yaml of {', '.join(run.hash for run in some)}{' (of the first)' if len(some) > 1 else ''}",
            preformatted(yaml.safe_dump(some[0].config, sort_keys=False, allow_unicode=True)),
        )
        for some in kinds
    )
    return (f"<p>The options that differ:</p>{table}" if names else "") + configs


def _commands(report: Report) -> str:
    """Each command line with the runs that it made: a sweep's made many."""
    whole = f"<p>The sweep:</p>{preformatted(report.sweep.command)}" if report.sweep else ""
    groups = _grouped([run for run in _every(report) if run.command], lambda run: run.command)
    return whole + "".join(_of(some) + preformatted(some[0].command) for some in groups)


def _of(runs: list[FinishedRun]) -> str:
    return f"<p>{text(', '.join(run.hash for run in runs))}</p>"


def _environment(report: Report) -> str:
    """Each machine and set of versions with the runs made there."""
    parts = []
    for some in _grouped(_every(report), lambda run: repr(_machine(run))):
        facts = "\n".join(f"{name}: {value}" for name, value in _machine(some[0]).items()) or "not known"
        parts.append(_of(some) + preformatted(facts))
    return "".join(parts)


def _machine(run: FinishedRun) -> dict[str, object]:
    kept = ("versions", "platform", "device", "threads")
    return flat({name: run.meta[name] for name in kept if name in run.meta})


def _every(report: Report) -> list[FinishedRun]:
    return [*report.runs, *report.dense]


def _grouped(runs: list[FinishedRun], key: Callable[[FinishedRun], str]) -> list[list[FinishedRun]]:
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())
