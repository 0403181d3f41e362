"""Patterns: which weights live or die together.

A pattern makes groups of units out of the prunable weights of a network (`pruneexp.groups`). The patterns here stay
within one tensor, which they see as a table, (rows, units): the units of a row compete with each other, and each row
loses the same number. Unstructured pruning has one row with one unit per weight; N:M has one row for every M weights.
Patterns that span several tensors (channels, heads) are in `pruneexp.structured`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.groups import Group
from pruneexp.masks import Masks


class Pattern(ABC):
    """A way to make units out of weights.

    fixed_sparsity: the sparsity of every layer where the pattern itself sets it, else None and a budget decides.
    single_weights: whether each unit is one weight, in the order of the tensor, and all of a tensor compete. overlap:
    where units are parts of other units, which cannot be ranked against each other, a message that says which.
    """

    fixed_sparsity: float | None = None
    single_weights = False
    overlap: str | None = None

    @abstractmethod
    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """The groups of the network, those without any prunable unit left out.

        weights: the prunable weights by dense name. model: the plain network. example: gives inputs that it takes.
        """


class TensorPattern(Pattern):
    """A pattern within single tensors: every weight tensor is a group.

    unit_size: weights in a unit. row_units: units in a row, None where all units of a tensor are in one.
    """

    unit_size = 1
    row_units: int | None = None

    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """One group for each weight that the pattern fits."""
        return [TensorGroup(name, weight.shape, self) for name, weight in weights.items() if self.fits(weight.shape)]

    def fits(self, shape: torch.Size) -> bool:
        """Whether a weight of this shape can be pruned in this pattern; one that cannot stays dense."""
        return True

    @abstractmethod
    def units(self, scores: Tensor) -> Tensor:
        """The score of each unit, shape (rows, units), from one non-negative score per weight."""

    @abstractmethod
    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """Values per unit, shape (rows, units), as a tensor broadcastable to a weight of this shape."""


class TensorGroup(Group):
    """The units of one weight."""

    def __init__(self, name: str, shape: torch.Size, pattern: TensorPattern) -> None:
        self.name = name
        self.parameters = (name,)
        self.shape = shape
        self.pattern = pattern
        self.unit_size = pattern.unit_size
        self.unit_count = shape.numel() // pattern.unit_size
        self.row_units = pattern.row_units or self.unit_count

    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """The pattern's units of the weight's values."""
        return self.pattern.units(values[self.name])

    def masks(self, keep: Tensor) -> Masks:
        """The mask of the weight."""
        return {self.name: self.pattern.expand(keep, self.shape)}


class Unstructured(TensorPattern):
    """Every weight is a unit of its own; all weights of a layer compete."""

    single_weights = True

    def units(self, scores: Tensor) -> Tensor:
        """The scores themselves, shape (1, weights)."""
        return scores.reshape(1, -1)

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """`units` in the shape of the weight."""
        return units.reshape(shape)


class NM(TensorPattern):
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
        self.m = self.row_units = m
        self.axis = axis
        self.indivisible = indivisible
        self.fixed_sparsity = 1 - n / m

    def fits(self, shape: torch.Size) -> bool:
        """Whether the axis is a multiple of m, or may be padded."""
        return self.indivisible == "pad" or self._length(shape) % self.m == 0

    def units(self, scores: Tensor) -> Tensor:
        """The scores in groups, shape (rows, m). Padding scores 0 and comes last, so that ties prune it first."""
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


class Block(TensorPattern):
    """Blocks of rows x columns weights of linear layers, scored by their root mean square; all of a layer compete."""

    def __init__(self, *, rows: int, columns: int) -> None:
        """Keeps the arguments; rows are output features, columns input features.

        Raises:
            ValueError: a side is below 1.
        """
        if rows < 1 or columns < 1:
            raise ValueError(f"pattern.rows={rows}, pattern.columns={columns}: a block has at least 1 x 1 weights")
        self.rows = rows
        self.columns = columns
        self.unit_size = rows * columns

    def fits(self, shape: torch.Size) -> bool:
        """Whether it is a matrix that divides into blocks."""
        return len(shape) == 2 and shape[0] % self.rows == 0 and shape[1] % self.columns == 0

    def units(self, scores: Tensor) -> Tensor:
        """The root mean square of each block, shape (1, blocks), row by row of blocks."""
        blocks = scores.unflatten(1, (-1, self.columns)).unflatten(0, (-1, self.rows))
        mean = blocks.square().mean((1, 3)).reshape(1, -1)
        # The slope of the root is infinite at 0, and a block of zeros would have a gradient of NaN.
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).sqrt()

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """`units`, each spread over its block."""
        blocks = units.view(shape[0] // self.rows, shape[1] // self.columns)
        return blocks.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
