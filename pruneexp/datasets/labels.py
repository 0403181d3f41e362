"""Labels as tables hold them -> tensors."""

import math
from typing import Any

import torch
from torch import Tensor

_UNLABELLED = -1  # in hidden test sets on the Hugging Face hub


def unlabelled(values: list[Any]) -> bool:
    """Whether no row has a label, as in a hidden test set."""
    return all(value is None or str(value) == str(_UNLABELLED) for value in values)


def class_labels(
    sources: dict[str, list[Any]], known: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Each source's labels as int64 (rows,), and the names of the classes.

    Whole numbers (also as text, from CSV) are classes as they stand. Names are numbered as in `known`, or else in
    sorted order over all sources, so that the numbers do not depend on the order of the rows.

    Raises:
        ValueError: a label that is out of range, fractional or not in `known`, or one single class.
    """
    every = [label for labels in sources.values() for label in labels]
    numbers = {label: _whole(label) for label in set(every)}
    if None in numbers.values():
        names = known or tuple(sorted({str(label) for label in numbers}))
        position = {name: number for number, name in enumerate(names)}
        numbers = {label: position.get(str(label), -1) for label in numbers}
    else:
        names = known or tuple(str(number) for number in range(min(max(numbers.values()) + 1, len(every))))
    for label, number in numbers.items():
        if not 0 <= number < len(names):
            raise ValueError(f"dataset.path: label {label!r} is out of range, there are {len(names)} classes from 0 on")
    if len(set(numbers.values())) < 2:
        raise ValueError(f"dataset.path: every label is {every[0]!r}; two or more classes are needed")
    return {source: torch.tensor([numbers[label] for label in labels]) for source, labels in sources.items()}, names


def _whole(label: Any) -> int | None:
    if isinstance(label, float) and not label.is_integer():
        raise ValueError(f"dataset.path: label {label} is no class; for values set dataset.regression=true")
    try:
        return int(label)
    except ValueError:
        return None


def values(labels: list[Any], *, source: str) -> Tensor:
    """Regression targets, float32 (rows,).

    Raises:
        ValueError: a label is no finite number.
    """
    numbers = []
    for row, label in enumerate(labels):
        try:
            numbers.append(float(label))
        except (TypeError, ValueError):
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise ValueError(
                f"dataset.path: label {label!r} in row {row + 1} of {source} is no number; regression needs them"
            )
    return torch.tensor(numbers, dtype=torch.float32)
