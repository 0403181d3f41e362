"""What can stand in a table's cells: a number of a run's summary or export, with its name and unit."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pruneexp.report.finished import FinishedRun
from pruneexp.report.numbers import (
    RATIOS,
    drop,
    exported,
    finite,
    latency,
    latency_rows,
    number,
    number_names,
    ratio,
    speedup,
)
from pruneexp.report.options import lookup
from pruneexp.report.scores import is_percentage

SUMMARY_PARTS = ("dense", "test", "validation", "auxiliary", "sparsity", "params", "macs", "size_bytes")
PLAIN = ("epochs", "steps", "wall_seconds", "majority_rate")


@dataclass(frozen=True)
class Metric:
    """One number of each run.

    name: as on the command line. label: as in a heading. quantity: what is measured, as the papers' numbers name it
    ("accuracy"). unit: "%" for fractions, "points" for differences of such, "B" for bytes, "ms", "s", "x" for
    ratios, "" for counts and for scores that are no fractions. value: of a run, None where it has none.
    """

    name: str
    label: str
    quantity: str
    unit: str
    value: Callable[[FinishedRun], float | None]

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be in `unit`."""
        return {"%": 100.0, "points": 100.0, "ms": 1000.0}.get(self.unit, 1.0)

    @property
    def is_count(self) -> bool:
        """Whether values are large whole numbers, written with a k, M or G."""
        return self.unit == "B" or (self.unit == "" and self.name.startswith(("params", "macs", "steps", "export")))


def metric(name: str, runs: Sequence[FinishedRun]) -> Metric:
    """The metric of that name for these runs, whose headline decides what `headline` is.

    Names: headline; drop (from the dense model's headline); a dotted name in summary.json, as sparsity.prunable or
    test.f1; macs.ratio, size_bytes.ratio, params.ratio (what is left of the dense model's); of an export: export.score,
    export.parameters, export.macs, export.bytes, latency.<batch size> and speedup.<batch size>.

    Raises:
        ValueError: no run has such a number, or the runs' headlines are different quantities.
    """
    found = _special(name, runs) or _from_summary(name, runs)
    if not any(found.value(run) is not None for run in runs):
        known = metric_names(runs)
        close = difflib.get_close_matches(name, known, n=3) or known
        raise ValueError(f"--metric {name}: no run has it; want one of {', '.join(close)}")
    return found


def metric_names(runs: Sequence[FinishedRun]) -> list[str]:
    """The names of the metrics that these runs have."""
    names = dict.fromkeys(("headline", "drop"))
    for run in runs:
        for part in SUMMARY_PARTS:
            names |= dict.fromkeys(f"{part}.{name}" for name in number_names(run.summary.get(part)))
        names |= dict.fromkeys(name for name in PLAIN if finite(run.summary.get(name)) is not None)
        names |= dict.fromkeys(f"{part}.ratio" for part in RATIOS if ratio(run, part) is not None)
        if run.export:
            names |= dict.fromkeys(f"export.{column}" for column in EXPORT_UNITS)
            sizes = [row.get("batch_size") for row in latency_rows(run)]
            names |= dict.fromkeys(f"{kind}.{size}" for kind in ("latency", "speedup") for size in sizes)
    return list(names)


EXPORT_UNITS = {"score": "%", "parameters": "", "macs": "", "bytes": "B"}
UNITS = {
    "sparsity": "%",
    "majority_rate": "%",
    "size_bytes": "B",
    "wall_seconds": "s",
    "step": "",
    "weight": "",
    "batch_size": "",
    "train": "",
    "test": "",
}
"""Of numbers that are no scores, by the last part of their name or by the first."""

LABELS = {
    "macs.ratio": "MACs left",
    "size_bytes.ratio": "bytes left",
    "params.ratio": "parameters left",
    "sparsity.prunable": "sparsity",
    "sparsity.total": "sparsity of all parameters",
    "macs.effective": "MACs",
    "macs.dense": "dense MACs",
    "size_bytes.compressed": "size, zeros packed",
    "size_bytes.dense": "dense size",
    "params.nonzero": "non-zero parameters",
    "params.total": "parameters",
    "wall_seconds": "time",
    "majority_rate": "majority class",
}


def _special(name: str, runs: Sequence[FinishedRun]) -> Metric | None:
    """A metric that is not simply a number of the summary."""
    if name in ("headline", "headline.value", "drop"):
        quantity = _headline(name, runs)
        if name == "drop":
            unit = "points" if is_percentage(quantity) else ""
            return Metric(name, f"{quantity} lost", f"{quantity} lost", unit, drop)
        read = partial(number, name="headline.value")
        return Metric("headline", f"test {quantity}", quantity, _unit(quantity), read)
    first, _, last = name.partition(".")
    if last == "ratio" and first in RATIOS:
        return Metric(name, LABELS[name], name, "%", partial(ratio, part=first))
    if first == "export" and last in EXPORT_UNITS:
        unit = EXPORT_UNITS[last] if last != "score" else _unit(_headline(name, runs))
        return Metric(name, f"{last} after export", name, unit, partial(exported, column=last))
    if first in TIMED and last.isdecimal():
        label, unit, read = TIMED[first]
        return Metric(name, f"{label}, batch {last}", first, unit, partial(read, batch_size=int(last)))
    return None


TIMED = {"latency": ("latency", "ms", latency), "speedup": ("speed-up", "x", speedup)}
"""What prune-export measured at each batch size."""


def _from_summary(name: str, runs: Sequence[FinishedRun]) -> Metric:
    """A number that stands in the summary under that name."""
    first, _, last = name.rpartition(".")
    if last == "value":  # of a quantity that is named beside it, or else is the headline
        named = {lookup(run.summary, f"{first}.name") or run.summary["headline"]["name"] for run in runs}
        last = " and ".join(sorted(named))
    scored = first.startswith(("test", "validation", "auxiliary", "dense")) and last not in UNITS
    unit = _unit(last) if scored else UNITS.get(last, UNITS.get(first, UNITS.get(name, "")))
    label = LABELS.get(name, f"{first} {last}".strip().replace(".", " ").replace("_", " "))
    return Metric(name, label, last if first == "test" else name, unit, partial(number, name=name))


def _headline(name: str, runs: Sequence[FinishedRun]) -> str:
    """The one quantity of the runs' headlines."""
    quantities = sorted({run.summary["headline"]["name"] for run in runs})
    if len(quantities) > 1:
        raise ValueError(
            f"--metric {name}: the runs' headlines are {' and '.join(quantities)}; take the runs of one, as with "
            f"--filter dataset=..., or --metric {','.join(f'test.{one}' for one in quantities)}"
        )
    return quantities[0]


def _unit(quantity: str) -> str:
    return "%" if is_percentage(quantity) else ""
