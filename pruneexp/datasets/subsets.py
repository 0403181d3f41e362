"""Which examples belong to train, validation and test: stratified, and the same for every method and run seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruneexp.datasets.seeds import SUBSET, TEST, VALIDATION, generator

_VALUE_STRATA = 10  # regression: examples are stratified by the decile of their value

Parts = dict[str, tuple[str, Tensor]]
"""train, validation, test -> (the source it is taken from, positions there as int64)."""


def stratified_order(labels: Tensor, *key: int) -> Tensor:
    """A permutation, int64 (examples,), whose every prefix holds the strata in nearly the proportions of the whole.

    labels: int64 classes or float32 values, (examples,). key: of the random numbers. Prefixes of growing length are
    nested, so that a 5 % subset is part of the 10 % subset.
    """
    source = generator(*key)
    shuffled = torch.randperm(len(labels), generator=source)
    strata = _strata(labels)[shuffled]
    grouped = strata.argsort(stable=True)
    _, sizes = strata[grouped].unique_consecutive(return_counts=True)
    number = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    # Example i of the n of a stratum, from 0, goes to (i + 1/2) / n of the way; ties fall in the order of the shuffle.
    place = torch.empty(len(labels), dtype=torch.float64)
    place[grouped] = (number.double() + 0.5) / sizes.repeat_interleave(sizes)
    return shuffled[place.argsort(stable=True)]


def _strata(labels: Tensor) -> Tensor:
    if not labels.is_floating_point():
        return labels
    ranks = labels.argsort(stable=True).argsort()
    return ranks * _VALUE_STRATA // len(labels)


@dataclass(frozen=True, kw_only=True)
class Subsets:
    """How the data at hand is divided. Nothing here depends on the run's seed.

    validation_fraction: of the training source, in (0, 1), carved out for validation (and for test, see `divide`).
    split_seed: of every division. fraction, max_examples: how much of the training part is used; None for all of it.
    """

    validation_fraction: float
    split_seed: int
    fraction: float | None
    max_examples: int | None

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"dataset.validation_fraction={self.validation_fraction}: give a number between 0 and 1")
        if self.split_seed < 0:
            raise ValueError(f"dataset.split_seed={self.split_seed}: give 0 or a positive integer")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"dataset.fraction={self.fraction}: give a number above 0, at most 1, or null for all")
        if self.max_examples is not None and self.max_examples < 1:
            raise ValueError(f"dataset.max_examples={self.max_examples}: give a positive integer, or null for all")

    def divide(self, labels: dict[str, Tensor]) -> Parts:
        """Train, validation and test, from the sources at hand. The train part is whole: see `shorten`.

        labels: source -> labels of its examples; sources are named train, validation, test, and train is there.
        Without test, the public validation source is the one to report (as for GLUE, whose test labels are hidden).
        What is then still missing is carved out of train, test before validation, `validation_fraction` of train each.
        """
        parts = {name: (name, torch.arange(len(values))) for name, values in labels.items()}
        if "test" not in parts and "validation" in parts:
            parts["test"] = parts.pop("validation")
        if "test" not in parts:
            parts["test"], parts["train"] = self._carve(labels["train"], parts["train"][1], TEST)
        if "validation" not in parts:
            parts["validation"], parts["train"] = self._carve(labels["train"], parts["train"][1], VALIDATION)
        return parts

    def _carve(self, labels: Tensor, positions: Tensor, stream: int) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        count = max(1, round(self.validation_fraction * len(labels)))
        if count >= len(positions):
            raise ValueError(
                f"dataset.validation_fraction={self.validation_fraction}: nothing is left to train on "
                f"of {len(labels)} examples; give a smaller number or more data"
            )
        order = positions[stratified_order(labels[positions], stream, self.split_seed)]
        return ("train", order[:count].sort().values), ("train", order[count:].sort().values)

    def shorten(self, labels: Tensor, positions: Tensor) -> Tensor:
        """The `fraction` of `positions`, `max_examples` of them at most; at least one.

        labels: of the whole source. positions: int64, into the source.
        """
        count = len(positions) if self.fraction is None else max(1, round(self.fraction * len(positions)))
        count = min(count, self.max_examples or count)
        order = stratified_order(labels[positions], SUBSET, self.split_seed)
        return positions[order[:count]].sort().values
