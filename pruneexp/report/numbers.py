"""Numbers of a run: what its summary and its export say, None for what they do not."""

import math
from typing import Any

from pruneexp.report.finished import FinishedRun
from pruneexp.report.options import lookup

RATIOS = {
    "macs": ("macs.effective", "macs.dense"),
    "size_bytes": ("size_bytes.compressed", "size_bytes.dense"),
    "params": ("params.nonzero", "params.total"),
}
"""What is left and what there was, by the part of the summary that says it."""


def finite(value: Any) -> float | None:
    """A number as it is; None for anything else, infinities too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # of a whole number with hundreds of digits
        return None


def number(run: FinishedRun, name: str) -> float | None:
    """The number under a dotted name of the summary."""
    return finite(lookup(run.summary, name))


def number_names(value: Any, prefix: str = "") -> list[str]:
    """The dotted names of the numbers in nested dicts."""
    if not isinstance(value, dict):
        return []
    names = []
    for key, item in value.items():
        names += number_names(item, f"{prefix}{key}.") if isinstance(item, dict) else []
        names += [f"{prefix}{key}"] if finite(item) is not None else []
    return names


def drop(run: FinishedRun) -> float | None:
    """How much the headline lost against the dense model that the run started from."""
    dense, pruned = number(run, "dense.value"), number(run, "headline.value")
    return None if dense is None or pruned is None else dense - pruned


def ratio(run: FinishedRun, part: str) -> float | None:
    """What is left of the dense model's MACs, bytes or parameters, in [0, 1]."""
    left, all_ = (number(run, name) for name in RATIOS[part])
    return left / all_ if left is not None and all_ else None


def exported(run: FinishedRun, column: str) -> float | None:
    """A number of the shrunk model that prune-export made: score, parameters, macs or bytes."""
    rows = run.export.get("rows")
    shrunk = [row for row in rows if isinstance(row, dict) and row.get("model") == "shrunk"] if rows else []
    return finite(shrunk[0].get(column)) if shrunk else None


def latency_rows(run: FinishedRun) -> list[dict[str, Any]]:
    """The timings that prune-export took."""
    rows = run.export.get("latency")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def latency(run: FinishedRun, batch_size: int, variant: str = "shrunk") -> float | None:
    """The median seconds of one call of a variant of the exported model."""
    rows = latency_rows(run)
    medians = {row.get("variant"): row.get("median") for row in rows if row.get("batch_size") == batch_size}
    return finite(medians.get(variant))


def speedup(run: FinishedRun, batch_size: int) -> float | None:
    """How many times faster the shrunk model is than the masked one, which has the dense one's shapes."""
    masked, shrunk = latency(run, batch_size, "masked"), latency(run, batch_size)
    return masked / shrunk if masked and shrunk else None
