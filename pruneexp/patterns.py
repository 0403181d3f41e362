"""Patterns: which weights live or die together, and how scores become masks.

A pattern sees a weight as a table of units, (groups, units): the units of a row compete with each other, and each row
loses the same number. Unstructured pruning has one row with one unit per weight; N:M has one row for every M weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pruneexp.masks import Masks, count_to_prune
from pruneexp.selection import keep_largest


class Pattern(ABC):
    """A way to group the weights of one tensor into units.

    single_weights: whether each unit is one weight, in the order of the tensor, and there is one group.
    fixed_sparsity: the sparsity of every layer where the pattern itself sets it, else None and a budget decides.
    """

    single_weights = False
    fixed_sparsity: float | None = None

    def fits(self, shape: torch.Size) -> bool:
        """Whether a weight of this shape can be pruned in this pattern; one that cannot stays dense."""
        return True

    @abstractmethod
    def units(self, scores: Tensor) -> Tensor:
        """The score of each unit, shape (groups, units), from one non-negative score per weight."""

    @abstractmethod
    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """Values per unit, shape (groups, units), as a tensor broadcastable to a weight of this shape."""

    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        """The mask of one tensor that prunes exactly round(sparsity x units) units of every group.

        scores: non-negative, the shape of the weight; larger = keep.

        Raises:
            ValueError: a score is NaN, or no unit would be left.
        """
        units = self.units(scores)
        if torch.isnan(units).any():
            raise ValueError("a score is NaN: the weights or gradients have diverged")
        count = count_to_prune(sparsity, units.shape[1])
        if count == units.shape[1]:
            raise ValueError(
                f"sparsity {sparsity:.6g} would prune all {count} units of a tensor of shape {tuple(scores.shape)}: "
                "lower the sparsity or exclude the layer"
            )
        return self.expand(keep_largest(units, count), scores.shape)

    def masks(self, scores: Mapping[str, Tensor], budget: Mapping[str, float]) -> Masks:
        """The masks of all tensors, each at its own sparsity. Raises ValueError as `mask`, with the layer's name."""
        masks = {}
        for name, layer_scores in scores.items():
            try:
                masks[name] = self.mask(layer_scores, budget[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return masks


class Unstructured(Pattern):
    """Every weight is a unit of its own; all weights of a layer compete."""

    single_weights = True

    def units(self, scores: Tensor) -> Tensor:
        """The scores themselves, shape (1, weights)."""
        return scores.reshape(1, -1)

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """`units` in the shape of the weight."""
        return units.reshape(shape)


class NM(Pattern):
    """N of every M weights are kept ("1:4" has n=1, m=4)."""

    def __init__(self, *, n: int, m: int, axis: str, indivisible: str) -> None:
        """Keeps the arguments.

        axis: "input", groups of consecutive input channels, which hardware asks for; or "memory", consecutive weights
        in the order of the tensor (OIHW), as SR-STE's code groups (Zhou et al. 2021, arXiv 2102.04010). indivisible:
        "dense" leaves layers alone whose axis is no multiple of m; "pad" fills the last group up with weights that are
        pruned first.

        Raises:
            ValueError: not 1 <= n <= m, or an unknown axis or choice.
        """
        if not 1 <= n <= m:
            raise ValueError(f"pattern.n={n}, pattern.m={m}: want 1 <= n <= m, n weights kept of every m")
        if axis not in ("input", "memory"):
            raise ValueError(f"pattern.axis={axis}: want input or memory")
        if indivisible not in ("dense", "pad"):
            raise ValueError(f"pattern.indivisible={indivisible}: want dense or pad")
        self.n = n
        self.m = m
        self.axis = axis
        self.indivisible = indivisible
        self.fixed_sparsity = 1 - n / m

    def fits(self, shape: torch.Size) -> bool:
        """Whether the axis is a multiple of m, or may be padded."""
        return self.indivisible == "pad" or self._length(shape) % self.m == 0

    def units(self, scores: Tensor) -> Tensor:
        """The scores in groups, shape (groups, m). Padding scores 0 and comes last, so that ties prune it first."""
        rows = scores.reshape(1, -1) if self.axis == "memory" else scores.movedim(1, -1).reshape(-1, scores.shape[1])
        missing = -rows.shape[1] % self.m
        return F.pad(rows, (0, missing)).reshape(-1, self.m)

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """`units` without the padding, in the shape of the weight."""
        length = self._length(shape)
        rows = units.reshape(-1, length + -length % self.m)[:, :length]
        if self.axis == "memory":
            return rows.reshape(shape)
        moved = (shape[0], *shape[2:], shape[1])
        return rows.reshape(moved).movedim(-1, 1)

    def _length(self, shape: torch.Size) -> int:
        return shape[1] if self.axis == "input" else shape.numel()
