"""Experiment runner for neural-network pruning.

`pruneexp.load(folder)` gives back the model of a finished run.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, imported when first asked for: importing the package must not import torch."""
    if name == "load":
        from pruneexp.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
