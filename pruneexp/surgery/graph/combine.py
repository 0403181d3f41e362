"""Rules of operations that combine several tensors: element-wise ones and concatenations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from pruneexp.surgery.graph.rules import Live, Rule

if TYPE_CHECKING:
    from pruneexp.surgery.graph.writer import Writer

MAX_PIECES = 16
"""Slices that a concatenation is made of at most. Ours: with 64 ShuffleNet-v2 and GoogLeNet have no fewer copies."""


@dataclass
class Join(Rule):
    """An element-wise operation on several tensors with the same channels, such as a residual sum or a gate.

    operands: inputs with these channels. constants: stored tensors with one element per channel -> their axis.

    Where an operand holds more channels than are read of the result, all operands and the result hold them, because
    a wider sum costs less than a copy of an operand. (In the paper's words, pruned channels that are mixed with
    retained ones are restored.)
    """

    node: fx.Node
    operands: tuple[fx.Node, ...]
    constants: dict[fx.Node, int]
    axis: int

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The live channels of every operand, and all of those that have other shapes."""
        for source in self.node.all_input_nodes:
            if source in self.operands:
                yield source, live[self.node]
            elif source in live and live[self.node].any():
                yield source, np.ones_like(live[source])
        if live[self.node].any():
            yield self.node, np.logical_or.reduce([live[operand] for operand in self.operands])

    def write(self, writer: "Writer") -> None:
        """Emits the operation with all operands in the order of that one which needs the fewest copies."""
        live = np.flatnonzero(writer.live[self.node])
        orders = [writer.in_order(operand, live) for operand in self.operands]
        order = min(orders, key=lambda order: sum(writer.is_copy(x, order, fixed=True) for x in self.operands))
        chosen: dict[fx.Node, Any] = {
            operand: writer.select(self.node, operand, order, fixed=True)[0] for operand in self.operands
        }
        for constant, axis in self.constants.items():
            chosen[constant] = writer.constant(constant, order, axis)
        writer.place(self.node, writer.copy(self.node, chosen), self.axis, order)


@dataclass
class Concat(Rule):
    """Tensors joined along their channels.

    The result holds all channels that the operands have, also those that nothing reads of it: one choice of channels
    behind it is faster than one in front of each operand (DenseNet-121 at 50 %: 53 against 61 ms for an image of 128
    pixels, one CPU thread).
    """

    node: fx.Node
    operands: tuple[fx.Node, ...]
    widths: tuple[int, ...]
    axis: int

    @property
    def free(self) -> bool:
        """Whether the result may mix the channels of its operands: if these are for it alone.

        A concatenation copies in any case; out of slices of its operands it makes any order with the same work.
        """
        return all(len(operand.users) == 1 for operand in self.operands)

    def parts(self, channels: np.ndarray) -> Iterator[tuple[fx.Node, int, np.ndarray]]:
        """For each operand its first channel in the result, and its part of a vector over the result's channels."""
        start = 0
        for operand, width in zip(self.operands, self.widths, strict=True):
            yield operand, start, channels[start : start + width]
            start += width

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """Each operand's part of the live channels, and whatever else the operands hold."""
        for operand, _, part in self.parts(live[self.node]):
            yield operand, part
        if live[self.node].any():
            yield self.node, np.concatenate([live[operand] for operand in self.operands])

    def write(self, writer: "Writer") -> None:
        """Emits the concatenation of the live channels, in the order of the ranks where a few slices make it."""
        live = writer.live[self.node]
        blocks = [
            (operand, start, writer.in_order(operand, np.flatnonzero(part)))
            for operand, start, part in self.parts(live)
            if part.any()
        ]
        if self.free:
            runs = self._runs(writer)
            blocks = runs if len(runs) <= MAX_PIECES else blocks
        tensors = [writer.select(self.node, operand, channels, fixed=True)[0] for operand, _, channels in blocks]
        order = np.concatenate([channels + start for _, start, channels in blocks])
        writer.place(self.node, writer.concat(tensors, self.axis), self.axis, order)

    def _runs(self, writer: "Writer") -> list[tuple[fx.Node, int, np.ndarray]]:
        """The ranked order as pieces that are slices: operand, its first channel in the result, its channels."""
        order = writer.ranked(self.node)
        starts = np.concatenate([[0], np.cumsum(self.widths)])
        owner = np.searchsorted(starts, order, side="right") - 1
        local = order - starts[owner]
        places = np.array(
            [writer.placed[self.operands[o]].positions[c] for o, c in zip(owner.tolist(), local.tolist(), strict=True)]
        )
        cuts = np.flatnonzero((np.diff(owner) != 0) | (np.diff(places) != 1)) + 1
        return [
            (self.operands[part_owner[0]], int(starts[part_owner[0]]), part)
            for part_owner, part in zip(np.split(owner, cuts), np.split(local, cuts), strict=True)
        ]
