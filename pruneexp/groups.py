"""Groups: units of weights that compete with each other, whatever tensors they lie in.

A pattern turns the prunable weights of a network into groups. In each group the units are ranked, a fraction of them is
pruned, and a pruned unit takes all its weights with it. The units of a `TensorGroup` are parts of one tensor (single
weights, N of M, blocks); those of a `SliceGroup` are slices of several (a channel is a filter and its normalisation, an
attention head is rows of three matrices and columns of a fourth).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruneexp.masks import Masks, count_to_prune
from pruneexp.selection import keep_largest


class Group(ABC):
    """Units that compete with each other.

    name: of the group, unique in a network. kind: what its units are, for messages and figures. parameters: dense names
    of all parameters that its units have weights in. companion_parameters: of others that lose entries with a unit.
    unit_size: the weights in each unit. unit_count: the units, of all rows together. row_units: the units of a row.
    """

    name: str
    kind: str = "units"
    parameters: tuple[str, ...]
    companion_parameters: tuple[str, ...] = ()
    unit_size: int
    unit_count: int
    row_units: int

    @abstractmethod
    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """One score per unit, shape (rows, units), from non-negative values, dense name -> (shape of the parameter).

        Each row loses the same number of units. Differentiable.
        """

    @abstractmethod
    def masks(self, keep: Tensor) -> Masks:
        """Masks of all `parameters` from a bool tensor (rows, units), True = keep."""

    def pruned_weights(self, sparsity: float) -> int:
        """How many weights a sparsity of this group prunes."""
        return self.unit_size * count_to_prune(sparsity, self.row_units) * (self.unit_count // self.row_units)

    def keep(self, values: Mapping[str, Tensor], sparsity: float) -> Tensor:
        """Which units stay, bool (rows, units): all but the round(sparsity x units) with the lowest scores of each row.

        Raises:
            ValueError: a score is NaN, or no unit would be left.
        """
        scores = self.scores(values)
        if torch.isnan(scores).any():
            raise ValueError(f"{self.name}: a score is NaN: the weights or gradients have diverged")
        units = scores.shape[1]
        count = count_to_prune(sparsity, units)
        if count == units:
            raise ValueError(
                f"{self.name}: sparsity {sparsity:.6g} would prune all {units} units of the layer: "
                "lower the sparsity or exclude the layer"
            )
        return keep_largest(scores, count)


@dataclass(frozen=True)
class Slice:
    """Where the units of a group lie in one parameter: whole slices along one dimension.

    unit: for each position along `dim`, the unit it belongs to, -1 for none; shape (size of that dimension,).
    """

    parameter: str
    dim: int
    unit: Tensor

    def expand(self, values: Tensor, dims: int) -> Tensor:
        """One value per unit, shape (units,), as a tensor that broadcasts to the parameter; 1 where there is no unit.

        dims: of the parameter.
        """
        spread = torch.cat([values, values.new_ones(1)])[self.unit]
        return spread.view([-1 if dim == self.dim else 1 for dim in range(dims)])


class SliceGroup(Group):
    """Units that are slices of several parameters.

    slices: of the prunable weights that die with a unit. scored: of the weights that make up its score. gates: of what
    a soft mask multiplies, to scale what the unit passes on. switches: of what has to be zero if it is off.
    companions: of what dies with a unit beside them, in parameters that are no part of what sparsity counts. across:
    whether the units have parts of the units of other groups, as hidden dimensions have of heads.
    """

    def __init__(
        self,
        name: str,
        *,
        tensors: Mapping[str, Tensor],
        slices: Iterable[Slice],
        scored: Iterable[Slice],
        gates: Iterable[Slice],
        switches: Iterable[Slice] | None = None,
        companions: Iterable[Slice] = (),
        norm: "Norm",
        kind: str = "units",
        across: bool = False,
    ) -> None:
        """tensors: the parameters by name. switches: None for the gates."""
        self.name = name
        self.kind = kind
        self.across = across
        gates = list(gates)
        self.slices, self.scored, self.gates, self.switches, self.companions = (
            tuple(Slice(part.parameter, part.dim, part.unit.to(tensors[part.parameter].device)) for part in parts)
            for parts in (slices, scored, gates, gates if switches is None else switches, companions)
        )
        self.norm = norm
        self.parameters = tuple(dict.fromkeys(part.parameter for part in self.slices))
        self.companion_parameters = tuple(dict.fromkeys(part.parameter for part in self.companions))
        self.shapes = {part.parameter: tensors[part.parameter].shape for part in (*self.slices, *self.companions)}
        self.unit_count = self.row_units = 1 + max(int(part.unit.max()) for part in self.slices)
        self.unit_size = _weights(self.slices, tensors) // self.unit_count
        self.fan_in = _weights(self.scored, tensors) // self.unit_count

    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """The norm of each unit's scored weights, shape (1, units)."""
        total = None
        for part in self.scored:
            value = values[part.parameter]
            sums = self.norm.sums(value, [dim for dim in range(value.dim()) if dim != part.dim])
            room = torch.zeros(self.unit_count + 1, dtype=sums.dtype, device=sums.device)
            summed = room.index_add(0, part.unit.remainder(self.unit_count + 1), sums)[:-1]
            total = summed if total is None else total + summed
        return self.norm.finish(total, self.fan_in)[None]

    def masks(self, keep: Tensor) -> Masks:
        """Masks that broadcast to each parameter, companions included."""
        masks: Masks = {}
        for part in (*self.slices, *self.companions):
            mask = part.expand(keep[0], len(self.shapes[part.parameter]))
            masks[part.parameter] = masks[part.parameter] & mask if part.parameter in masks else mask
        return masks


@dataclass(frozen=True)
class Norm:
    """A norm of a unit's weights: "l2" or "l1", with "/fan_in" per weight, so that units of several sizes compare.

    l2: sqrt(sum w^2); l2/fan_in: sqrt(mean w^2); l1: sum |w|; l1/fan_in: mean |w|.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in NORMS:
            raise ValueError(f"pattern.norm={self.name}: want one of {', '.join(NORMS)}")

    def sums(self, weight: Tensor, dims: list[int]) -> Tensor:
        """sum w^2 or sum |w| over some dimensions of a weight."""
        if self.name.startswith("l1"):
            return torch.linalg.vector_norm(weight, 1, dims)
        return torch.linalg.vector_norm(weight, 2, dims).square()

    def finish(self, total: Tensor, fan_in: int) -> Tensor:
        """The norm from the sum over all `fan_in` weights of a unit."""
        if self.name.endswith("/fan_in"):
            total = total / fan_in
        if self.name.startswith("l1"):
            return total
        # The slope of the root is infinite at 0, and a norm of zero weights would have a gradient of NaN.
        return total.clamp_min(torch.finfo(total.dtype).tiny).sqrt()


NORMS = ("l2", "l2/fan_in", "l1", "l1/fan_in")


def _weights(slices: Iterable[Slice], tensors: Mapping[str, Tensor]) -> int:
    """The weights in all units together."""
    return sum(int((part.unit >= 0).sum()) * (tensors[part.parameter].numel() // len(part.unit)) for part in slices)


def common_weights(group: SliceGroup, across: SliceGroup) -> Tensor:
    """The weights that each unit of a group has in common with all units of another one, int64, shape (units,)."""
    counts = torch.zeros(group.unit_count + 1, dtype=torch.int64, device=group.slices[0].unit.device)
    others = {(part.parameter, part.dim): part.unit >= 0 for part in across.slices}
    for part in group.slices:
        for (parameter, dim), theirs in others.items():
            if parameter == part.parameter:
                size = group.shapes[parameter].numel() // len(part.unit)
                each = theirs * size if dim == part.dim else int(theirs.sum()) * size // len(theirs)
                counts.index_add_(0, part.unit.remainder(len(counts)), torch.zeros_like(part.unit) + each)
    return counts[:-1]


def merged(parts: Iterable[Masks]) -> Masks:
    """The masks of several groups as one: a weight stays if no group prunes it."""
    together: Masks = {}
    for masks in parts:
        for name, mask in masks.items():
            together[name] = together[name] & mask if name in together else mask
    return together
