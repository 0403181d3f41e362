"""Units in units: attention heads in attention sub-layers, FFN units in FFN sub-layers, and what a choice leaves.

All units of all groups stand in one row, in the order of the groups. A unit that holds a whole group of others (a
sub-layer its heads) is its *holder*; a weight of an inner unit stays only if both are kept. Holders are not held
themselves. One group may run *across* all others, as hidden dimensions do: a weight stays if both its units are kept.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pruneexp.groups import SliceGroup, common_weights, merged
from pruneexp.masks import Masks, count_to_prune
from pruneexp.unit_choice import Choice


class Nesting:
    """The row of units.

    holder: index of the unit that holds each, -1 for none, shape (units,). own: weights of each that no unit inside it
    has, int64, shape (units,); all of a head's, but of an attention sub-layer only the bias of its output. shared: how
    many of `own` each of the units that run across has (hidden dimensions, which are all alike); 0 for these, whose
    `own` is what is in no other unit. is_across: which units these are, bool (units,).
    """

    def __init__(self, groups: Iterable[SliceGroup], total: int) -> None:
        """total: the weights that sparsity is a fraction of, those in no unit included."""
        self.groups = {group.name: group for group in groups}
        self.total = total
        self.counts = [group.unit_count for group in self.groups.values()]
        device = next(iter(self.groups.values())).slices[0].unit.device
        starts = dict(zip(self.groups, torch.tensor([0, *self.counts]).cumsum(0).tolist(), strict=False))
        across = next((group for group in self.groups.values() if group.across), None)
        self.holder = torch.full((sum(self.counts),), -1, device=device)
        self.own = self._row(lambda group: group.unit_size, device)
        self.is_across = self._row(lambda group: int(group.across), device).bool()
        self.shared = self._row(
            lambda group: 0 if across in (None, group) else common_weights(group, across) // across.unit_count, device
        )
        for name, (outer, unit) in self._held().items():
            inner, holder = self.groups[name], starts[outer] + unit
            units = slice(starts[name], starts[name] + inner.unit_count)
            self.holder[units] = holder
            self.own[holder] -= self.own[units].sum()
            self.shared[holder] -= self.shared[units].sum()
        self.own[self.is_across] -= self.shared.sum()
        self.across = int(self.is_across.sum())
        self.is_holder = torch.zeros_like(self.holder, dtype=torch.bool)
        self.is_holder[self.holder[self.holder >= 0]] = True

    def _row(self, value: Callable[[SliceGroup], int | Tensor], device: torch.device) -> Tensor:
        """A value for each unit, int64 (units,). value: of a group, one for all its units or one for each."""
        parts = [torch.as_tensor(value(group)).expand(group.unit_count) for group in self.groups.values()]
        return torch.cat(parts).to(device)

    def _held(self) -> dict[str, tuple[str, int]]:
        """Group -> the other group and its unit that have all the group's parameters."""
        whole = {  # group -> parameter -> the one unit that has all of it
            name: {
                part.parameter: int(part.unit[0])
                for part in group.slices
                if part.unit[0] >= 0 and bool((part.unit == part.unit[0]).all())
            }
            for name, group in self.groups.items()
        }
        held: dict[str, tuple[str, int]] = {}
        for name, group in self.groups.items():
            for outer, units in whole.items():
                if outer != name and not group.across and held.get(outer, ("",))[0] != name:
                    found = {units.get(parameter) for parameter in group.parameters}
                    if len(found) == 1 and None not in found:
                        held[name] = (outer, found.pop())
        return held

    def split(self, row: Tensor) -> dict[str, Tensor]:
        """Group -> its part of a row, shape (units of the group,)."""
        return dict(zip(self.groups, row.split(self.counts), strict=True))

    def joint(self, openness: Tensor) -> Tensor:
        """The probability that a unit and its holder are open, from each one's own, shape (units,)."""
        return openness * torch.cat([openness, openness.new_ones(1)])[self.holder]

    def sparsity(self, openness: Tensor) -> Tensor:
        """The expected fraction of the weights that is pruned, a scalar in [0, 1]; differentiable.

        openness: probability that each unit is open, 0 or 1 for a decided one, shape (units,).

        Where hidden dimensions are closed, an open unit loses what it shares with them, as in CoFi. CoFi's code counts
        4 d (d + 1) / heads weights for a head and 2 d + 1 for an FFN unit (d features), which spreads the bias of the
        attention's output over the heads and forgets that of the FFN's output, though both are in its total. Here they
        belong to the sub-layer. Both agree up to 2 d weights in a layer.
        """
        joint = self.joint(openness)
        pruned = ((1 - joint) * self.own.to(openness.dtype)).sum()
        if self.across:
            closed = (1 - openness[self.is_across]).sum()
            pruned = pruned + closed * (joint * self.shared.to(openness.dtype)).sum()
        return pruned / self.total

    def pruned(self, keep: Tensor) -> int:
        """The number of weights that are pruned where `keep` (bool, (units,)) is False."""
        joint = self.joint(keep)
        closed = int((~keep[self.is_across]).sum())
        return int(self.own[~joint].sum()) + closed * int(self.shared[joint].sum())

    def masks(self, keep: Tensor) -> Masks:
        """The masks of the units that are kept, bool (units,)."""
        parts = self.split(keep)
        return merged(group.masks(parts[name][None]) for name, group in self.groups.items())

    def without_empty_holders(self, keep: Tensor) -> Tensor:
        """`keep`, with holders closed that hold no unit that is kept."""
        used = torch.zeros_like(self.is_holder)
        used[self.holder[keep & (self.holder >= 0)]] = True
        return keep & (used | ~self.is_holder)

    def most(self) -> int:
        """The largest number of weights that can be pruned: all, but one unit of each group without a holder."""
        keep = torch.zeros_like(self.is_holder)
        for units in torch.arange(len(self.own), device=keep.device).split(self.counts):
            keep[units[0]] = self.holder[units[0]] < 0 and not self.is_holder[units].any()
        return self.pruned(keep)

    def check(self, sparsity: float) -> None:
        """Raises ValueError if so many weights cannot be pruned."""
        most = self.most() / self.total
        if sparsity > most:
            raise ValueError(
                f"sparsity={sparsity}: whole units reach {most:.4f} at most, since one has to stay in each group; "
                "lower it or exclude small layers"
            )

    def closest(self, openness: Tensor, sparsity: float) -> Tensor:
        """Which units to keep, bool (units,), to come as close to a sparsity as whole units allow.

        Closed are the units with the smallest joint openness, of equals the later one. A unit larger than what is
        missing is passed over; where something is missing in the end, one of them is closed if that comes closer, once
        smaller ones are opened again for what it closes too much. A holder closes with the last unit in it; a group
        without a holder keeps its best unit.
        """
        order = self.joint(openness).argsort(descending=True, stable=True).flip(0)
        order = order[~self.is_holder[order]].tolist()
        best = Choice(
            self.own,
            self.shared,
            self.holder,
            self.is_across,
            self.counts,
            missing=count_to_prune(sparsity, self.total),
        )
        best.close(order)
        closable = [unit for unit in order if best.keep[unit] and best.price(unit) < math.inf]
        for unit in {*closable[:1], min(closable, key=best.price)} if closable and best.missing else ():
            other = best.copy()
            other.close([unit], beyond=True)
            other.open(reversed(order))
            if abs(other.missing) < abs(best.missing):
                best = other
        return self.without_empty_holders(torch.tensor(best.keep, device=openness.device))
