"""Closing units one by one until a number of weights is pruned, with what each one costs at that moment.

A unit is worth less once units that run across it are closed, and more where the unit that holds it closes with it.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable

from torch import Tensor


class Choice:
    """Units that are kept, and the weights that are missing to a target.

    keep: for each unit, whether it is kept. missing: the weights that are still to be pruned, negative if too many are.
    """

    def __init__(
        self, own: Tensor, shared: Tensor, holder: Tensor, is_across: Tensor, counts: list[int], *, missing: int
    ) -> None:
        """Keeps all units. own, shared, holder, is_across, counts: as of `pruneexp.nesting.Nesting`."""
        self.own, self.shared, self.holder = own.tolist(), shared.tolist(), holder.tolist()
        self.is_across = is_across.tolist()
        group_of = [group for group, count in enumerate(counts) for _ in range(count)]
        # Units whose last one matters: those of one holder, which closes with it, or those of one group without.
        self.team = [outer if outer >= 0 else -1 - group for outer, group in zip(self.holder, group_of, strict=True)]
        self.alive = Counter(self.team)
        self.keep = [True] * len(self.own)
        self.closed_across = 0  # units that run across and are closed
        self.open_shared = sum(self.shared)  # the weights of open units that one of them has
        self.missing = missing

    def copy(self) -> "Choice":
        """The same choice, to go on with."""
        other = copy.copy(self)
        other.alive, other.keep = self.alive.copy(), list(self.keep)
        return other

    def price(self, unit: int) -> float:
        """The weights that closing a unit prunes; infinite where it has to stay."""
        last = self.alive[self.team[unit]] == 1
        if self.is_across[unit]:
            return math.inf if last else self.own[unit] + self.open_shared
        if not last:
            return self._weights(unit)
        return self._weights(unit) + self._weights(self.holder[unit]) if self.holder[unit] >= 0 else math.inf

    def _weights(self, unit: int) -> int:
        return self.own[unit] - self.closed_across * self.shared[unit]

    def _turn(self, unit: int, by: int) -> None:
        """Closes a unit (by = -1) or opens it (1), and its holder where it is the last or first one in it."""
        last = self.alive[self.team[unit]] == (1 if by < 0 else 0)
        self.keep[unit] = by > 0
        self.alive[self.team[unit]] += by
        if self.is_across[unit]:
            self.closed_across -= by
        else:
            held = self.shared[self.holder[unit]] if last and self.holder[unit] >= 0 else 0
            self.open_shared += by * (self.shared[unit] + held)

    def close(self, order: Iterable[int], *, beyond: bool = False) -> None:
        """Closes, in this order, the units that fit into what is missing; beyond: also those that do not."""
        for unit in order:
            if self.missing <= 0:
                return
            price = self.price(unit) if self.keep[unit] else math.inf
            if price <= self.missing or (beyond and price < math.inf):
                self.missing -= price
                self._turn(unit, -1)

    def open(self, order: Iterable[int]) -> None:
        """Opens closed units again, in this order, that fit into what is closed too much."""
        for unit in order:
            if self.missing >= 0:
                return
            if not self.keep[unit]:
                self._turn(unit, 1)
                price = self.price(unit)
                if price <= -self.missing:
                    self.missing += price
                else:
                    self._turn(unit, -1)
