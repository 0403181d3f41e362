"""Budgets: from one target sparsity to the sparsity of each layer.

A layer is a group of units (`pruneexp.groups`): single weights, blocks, channels. Of N single weights every budget
prunes exactly round(target x N); of larger units, as near to the target fraction of the weights as whole units allow.
Each layer keeps at least one unit. A layer's share is the fraction count / units, so that the mask of a layer gets
exactly that count back.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pruneexp.masks import count_to_prune
from pruneexp.selection import boundary


class Budget(ABC):
    """A rule that spreads a target sparsity over layers."""

    def __call__(
        self, scores: Mapping[str, Tensor], sparsity: float, unit_sizes: Mapping[str, int] | None = None
    ) -> dict[str, float]:
        """The sparsity of each layer, in [0, 1).

        scores: name -> non-negative scores of the layer's units; larger = keep. Single weights have the shape of their
        tensor. sparsity: the target over all weights of all layers together, in [0, 1). unit_sizes: name -> weights in
        each unit of the layer, None for single weights.

        Raises:
            ValueError: the target leaves fewer units than there are layers.
        """
        counted = {name: layer.numel() for name, layer in scores.items()}
        sizes = unit_sizes or dict.fromkeys(scores, 1)
        self.check(counted, sparsity, sizes)
        counts = self._counts(scores, count_to_prune(sparsity, sum(counted.values())), sparsity, sizes)
        return {name: counts[name] / units for name, units in counted.items()}

    def _counts(
        self, scores: Mapping[str, Tensor], to_prune: int, sparsity: float, sizes: Mapping[str, int]
    ) -> dict[str, int]:
        return self.counts(scores, to_prune)

    def check(self, counts: Mapping[str, int], sparsity: float, sizes: Mapping[str, int]) -> None:
        """Raises ValueError if the sparsity would keep fewer weights than there are in one unit of each layer.

        counts: layer -> number of units. sizes: layer -> weights in each.
        """
        total = sum(counts[name] * sizes[name] for name in counts)
        kept = total - count_to_prune(sparsity, total)
        least = sum(sizes[name] for name in counts)
        if kept < least:
            units = "one" if least == len(counts) else "one unit"
            raise ValueError(
                f"sparsity={sparsity}: would keep {kept} of {total} prunable weights in {len(counts)} layers, and at "
                f"least {units} has to stay in each; lower the sparsity or exclude small layers"
            )

    @abstractmethod
    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """The number of units to prune in each layer; at most all but one of a layer, `to_prune` in total."""


class UnitBudget(Budget):
    """A budget that also spreads sparsity over units of several weights."""

    def _counts(
        self, scores: Mapping[str, Tensor], to_prune: int, sparsity: float, sizes: Mapping[str, int]
    ) -> dict[str, int]:
        if any(size > 1 for size in sizes.values()):
            return self.counts_of_sizes(scores, sparsity, sizes)
        return super()._counts(scores, to_prune, sparsity, sizes)

    @abstractmethod
    def counts_of_sizes(
        self, scores: Mapping[str, Tensor], sparsity: float, sizes: Mapping[str, int]
    ) -> dict[str, int]:
        """The number of units to prune in each layer, at most all but one, for units of several weights."""


@dataclass(frozen=True)
class Global(UnitBudget):
    """All layers compete: each loses as many units as it has among the smallest scores of the whole model."""

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """How many of the `to_prune` smallest scores are in each layer, the best unit of each layer left out.

        Of those equal to the largest of them the ones in the first layers stay.
        """
        if to_prune == 0:
            return dict.fromkeys(scores, 0)
        pool, parts = _pool(scores)
        _, smallest_kept = boundary(pool[None], to_prune)
        counts = {name: int((part < smallest_kept).sum()) for name, part in parts.items()}
        left = to_prune - sum(counts.values())
        for name, part in reversed(parts.items()):
            if left == 0:
                break
            tied = min(left, int((part == smallest_kept).sum()))
            counts[name] += tied
            left -= tied
        return counts

    def counts_of_sizes(
        self, scores: Mapping[str, Tensor], sparsity: float, sizes: Mapping[str, int]
    ) -> dict[str, int]:
        """The units with the smallest scores, the best of each layer left out, that fit into the target.

        A unit that is larger than what is left of the target is passed over, so that smaller ones fill it up.
        """
        pool, parts = _pool(scores)
        size = torch.cat([torch.full((len(part),), sizes[name]) for name, part in parts.items()])
        order = pool.cpu().argsort(stable=True)[: len(pool) - len(scores)]  # infinite scores come last
        left = round(sparsity * int(size.sum()))
        fits = size[order].cumsum(0) <= left
        pruned = torch.zeros(len(pool), dtype=torch.bool)
        pruned[order[fits]] = True
        left -= int(size[order[fits]].sum())
        for unit in order[~fits].tolist():
            if size[unit] <= left:
                pruned[unit] = True
                left -= int(size[unit])
        by_layer = pruned.split([len(part) for part in parts.values()])
        return {name: int(layer.sum()) for name, layer in zip(parts, by_layer, strict=True)}


def _pool(scores: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """All scores in a row, the best of each layer infinite, and the part of it that is each layer's."""
    layers = {name: layer.detach().flatten() for name, layer in scores.items()}
    pool = torch.cat(list(layers.values()))
    parts = dict(zip(layers, pool.split([len(layer) for layer in layers.values()]), strict=True))
    for part in parts.values():
        part[part.argmax()] = float("inf")
    return pool, parts


@dataclass(frozen=True)
class Uniform(UnitBudget):
    """Every layer has the target sparsity."""

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """The target fraction of each layer, the rounding handed out so that the total is exact."""
        total = sum(layer.numel() for layer in scores.values())
        shares = {name: to_prune / total * layer.numel() for name, layer in scores.items()}
        return whole_counts(shares, {name: layer.numel() - 1 for name, layer in scores.items()}, to_prune)

    def counts_of_sizes(
        self, scores: Mapping[str, Tensor], sparsity: float, sizes: Mapping[str, int]
    ) -> dict[str, int]:
        """The target fraction of each layer, rounded."""
        return {name: min(count_to_prune(sparsity, layer.numel()), layer.numel() - 1) for name, layer in scores.items()}


@dataclass(frozen=True)
class ERK(Budget):
    """Erdos-Renyi-Kernel: small layers stay denser (Evci et al. 2020, arXiv 1911.11134, section 3).

    The density of a layer of shape (d_1, ..., d_k) is proportional to (d_1 + ... + d_k) / (d_1 x ... x d_k); layers
    that would have more than all their weights stay dense and the rest share what is left.
    """

    def check(self, counts: Mapping[str, int], sparsity: float, sizes: Mapping[str, int]) -> None:
        """Raises ValueError for units of several weights, too: the rule is about single ones."""
        if any(size > 1 for size in sizes.values()):
            raise ValueError("budget=erk: is defined for single weights; take budget=uniform or budget=global")
        super().check(counts, sparsity, sizes)

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """The counts that densities proportional to sum(shape) / prod(shape) leave."""
        sizes = {name: layer.numel() for name, layer in scores.items()}
        scale = {name: sum(layer.shape) for name, layer in scores.items()}  # raw density x number of weights
        dense: set[str] = set()
        kept = dict.fromkeys(sizes, 0.0)
        while True:
            to_keep = sum(sizes.values()) - to_prune - sum(sizes[name] for name in dense)
            factor = to_keep / sum(scale[name] for name in sizes if name not in dense) if len(dense) < len(sizes) else 0
            kept = {name: float(size) if name in dense else factor * scale[name] for name, size in sizes.items()}
            too_dense = {name for name in sizes if name not in dense and kept[name] > sizes[name]}
            if not too_dense:
                break
            dense |= too_dense
        return whole_counts(
            {name: size - kept[name] for name, size in sizes.items()},
            {name: size - 1 for name, size in sizes.items()},
            to_prune,
        )


@dataclass(frozen=True)
class OfRun(Budget):
    """The layers' sparsities of a finished run, scaled so that together they meet the target.

    Tells what a method owes to where it prunes from what it owes to how. run: the folder of the run.
    """

    run: str | None

    def check(self, counts: Mapping[str, int], sparsity: float, sizes: Mapping[str, int]) -> None:
        """Raises ValueError, too, if there is no such run, or its masks are not of these layers' weights."""
        kept = self._kept
        for name, count in counts.items():
            if sizes[name] > 1 or (name in kept and kept[name].numel() != count):
                raise ValueError(
                    f"budget.run={self.run}: has another {name}; take a run with the same model and pattern"
                )
        if not kept.keys() & counts.keys():
            raise ValueError(f"budget.run={self.run}: its masks are of none of the prunable layers; take another run")
        super().check(counts, sparsity, sizes)

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """Each layer keeps as many as in the run, times the ratio of what both keep in all; without a mask, all."""
        sizes = {name: layer.numel() for name, layer in scores.items()}
        masks = self._kept
        kept = {name: int(masks[name].sum()) if name in masks else size for name, size in sizes.items()}
        factor = (sum(sizes.values()) - to_prune) / sum(kept.values())
        shares = {name: max(0.0, size - factor * kept[name]) for name, size in sizes.items()}
        return whole_counts(shares, {name: size - 1 for name, size in sizes.items()}, to_prune)

    @cached_property
    def _kept(self) -> dict[str, Tensor]:
        path = Path(self.run or "") / "masks.safetensors"
        if self.run is None or not path.is_file():
            raise ValueError(f"budget.run={self.run}: want the folder of a finished run with masks.safetensors in it")
        try:
            return load_file(path)
        except Exception as error:  # of safetensors, whatever the damage
            raise ValueError(f"budget.run={self.run}: masks.safetensors is damaged ({error}); run it again") from error


def whole_counts(shares: Mapping[str, float], limits: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers next to `shares`, none above its limit, that sum to `total` (largest remainder first)."""
    counts = {name: min(int(share), limits[name]) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    while (missing := total - sum(counts.values())) > 0:
        for name in [name for name in by_remainder if counts[name] < limits[name]][:missing]:
            counts[name] += 1
    return counts
