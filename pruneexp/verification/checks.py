"""A number of a summary beside the same number computed anew, and how far the two may be apart."""

import math
from dataclasses import dataclass
from typing import Any

CLOSE = 1e-9
"""How far two numbers may be apart that were counted: rounding of a division."""

LOSS = 1e-4
"""Relative difference of two losses: float32 sums in another order, in batches of another size."""

OTHER_DEVICE = 0.005
"""How far scores may be apart where the run tested on another kind of device: a few examples at the edge."""

UNCHECKED = ("wall_seconds", "resumed_from", "places", "format")
"""Keys of what only the run itself could know."""


@dataclass(frozen=True)
class Check:
    """One number. problem: None where both agree."""

    key: str
    reported: Any
    recomputed: Any
    problem: str | None = None


def compared(key: str, reported: Any, recomputed: Any, device: str) -> Check:
    """A check of one number or word. device: where the run tested, which says how far two scores may be apart."""
    if not isinstance(reported, int | float) or not isinstance(recomputed, int | float):
        return Check(key, reported, recomputed, None if reported == recomputed else "differs")
    score = key.startswith(("test.", "headline.", "dense.", "auxiliary."))
    allowed = CLOSE
    if key.endswith("loss"):
        allowed = LOSS * max(1.0, abs(recomputed)) if device == "cpu" else 0.02 * max(1.0, abs(recomputed))
    elif score and device != "cpu":
        allowed = OTHER_DEVICE
    elif score and key.rpartition(".")[2] in ("pearson", "spearman"):
        allowed = LOSS
    same = math.isclose(reported, recomputed, rel_tol=CLOSE, abs_tol=allowed)
    return Check(key, reported, recomputed, None if same else "differs")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested values under dotted keys; lists, digests and what only the run could know left out."""
    if isinstance(value, dict):
        return {
            key: item
            for name, inner in value.items()
            if path or name not in (*UNCHECKED, "sha256")
            for key, item in flat(inner, f"{path}.{name}" if path else name).items()
        }
    return {} if isinstance(value, list) else {path: value}
