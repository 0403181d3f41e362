"""Budgets: from one target sparsity to the sparsity of each layer.

Every budget prunes exactly round(target x N) units of the N there are, leaves each layer at least one, and states each
layer's share as a fraction count / units, so that the mask of a layer gets exactly that count back.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruneexp.masks import count_to_prune
from pruneexp.selection import keep_largest


class Budget(ABC):
    """A rule that spreads a target sparsity over layers."""

    def __call__(self, scores: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
        """The sparsity of each layer, in [0, 1).

        scores: name -> non-negative scores of the layer's units, the shape of its weight; larger = keep.
        sparsity: the target over all layers together, in [0, 1).

        Raises:
            ValueError: the target leaves fewer units than there are layers.
        """
        sizes = {name: layer.numel() for name, layer in scores.items()}
        check_budget(list(sizes.values()), sparsity)
        to_prune = count_to_prune(sparsity, sum(sizes.values()))
        counts = self.counts(scores, to_prune)
        return {name: counts[name] / size for name, size in sizes.items()}

    @abstractmethod
    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """The number of units to prune in each layer; at most all but one of a layer, `to_prune` in total."""


def check_budget(sizes: list[int], sparsity: float) -> None:
    """Raises ValueError if a sparsity over layers of these sizes leaves fewer weights than there are layers."""
    total = sum(sizes)
    kept = total - count_to_prune(sparsity, total)
    if kept < len(sizes):
        raise ValueError(
            f"sparsity={sparsity}: would keep {kept} of {total} prunable weights in {len(sizes)} layers, and at least "
            "one has to stay in each; lower the sparsity or exclude small layers"
        )


@dataclass(frozen=True)
class Global(Budget):
    """All layers compete: each loses as many units as it has among the smallest scores of the whole model."""

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """How many of the `to_prune` smallest scores are in each layer, the best unit of each layer left out."""
        pool = torch.cat([layer.detach().flatten() for layer in scores.values()])
        start = 0
        for layer in scores.values():
            pool[start + int(layer.argmax())] = float("inf")
            start += layer.numel()
        pruned = ~keep_largest(pool[None], to_prune)[0]
        parts = pruned.split([layer.numel() for layer in scores.values()])
        return {name: int(part.sum()) for name, part in zip(scores, parts, strict=True)}


@dataclass(frozen=True)
class Uniform(Budget):
    """Every layer has the target sparsity."""

    def counts(self, scores: Mapping[str, Tensor], to_prune: int) -> dict[str, int]:
        """The target fraction of each layer."""
        total = sum(layer.numel() for layer in scores.values())
        shares = {name: to_prune / total * layer.numel() for name, layer in scores.items()}
        return whole_counts(shares, {name: layer.numel() - 1 for name, layer in scores.items()}, to_prune)


@dataclass(frozen=True)
class ERK(Budget):
    """Erdos-Renyi-Kernel: small layers stay denser (Evci et al. 2020, arXiv 1911.11134, section 3).

    The density of a layer of shape (d_1, ..., d_k) is proportional to (d_1 + ... + d_k) / (d_1 x ... x d_k); layers
    that would have more than all their weights stay dense and the rest share what is left.
    """

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


def whole_counts(shares: Mapping[str, float], limits: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers next to `shares`, none above its limit, that sum to `total` (largest remainder first)."""
    counts = {name: min(int(share), limits[name]) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    while (missing := total - sum(counts.values())) > 0:
        for name in [name for name in by_remainder if counts[name] < limits[name]][:missing]:
            counts[name] += 1
    return counts
