"""What operations that make no new channels ask of their inputs, and how they are written into the smaller graph.

A rule belongs to one node. `demand` says which channels of each input are needed for the live ones of its output;
`write` emits the operation for these channels only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

if TYPE_CHECKING:
    from pruneexp.surgery.graph.writer import Writer

Live = dict[fx.Node, np.ndarray]
"""Node -> bool per channel; a single bool for tensors without labels."""


class Rule:
    """The rule of a node whose operation is not understood: it gets its inputs whole, in their first order."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """Pairs of an input and the channels of it that are needed (bool)."""
        for source in self.node.all_input_nodes:
            if source in live:
                yield source, np.ones_like(live[source])

    def write(self, writer: "Writer") -> None:
        """Emits the operation as it is."""
        writer.copy(self.node)


class Verbatim(Rule):
    """A rearrangement without an axis of channels: emitted as it is where something reads it, otherwise not at all."""

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """All of the input if the output is read."""
        if live[self.node].any():
            yield from super().demand(live)

    def write(self, writer: "Writer") -> None:
        """Emits the rearrangement if something reads it."""
        if writer.live[self.node].any():
            writer.copy(self.node)


@dataclass
class PerChannel(Rule):
    """Each output channel depends on the same input channel alone: activation, pooling, normalisation, permutation.

    emit: (writer, input node, kept channels in their new order) -> node. shrinks: whether the output is smaller than
    the input, so that a copy of channels is cheaper after it. axis: of the output's channels. widened: the output holds
    all channels that the input has, also where fewer are read of it: of a tensor with several readers, who would each
    pick theirs from it, a copy here would come on top.
    """

    node: fx.Node
    source: fx.Node
    axis: int
    emit: Callable[["Writer", fx.Node, np.ndarray], fx.Node]
    shrinks: bool = False
    widened: bool = False

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The live channels."""
        yield self.source, live[self.node]
        if self.widened and live[self.node].any():
            yield self.node, live[self.source]

    def write(self, writer: "Writer") -> None:
        """Emits the operation on the live channels; on all that are there where selecting is cheaper afterwards."""
        wanted = np.flatnonzero(writer.live[self.node])
        placed = writer.placed[self.source]
        if self.shrinks and writer.is_copy(self.source, wanted) and placed.is_complete():
            wanted = np.flatnonzero(placed.positions >= 0)
        tensor, order = writer.select(self.node, self.source, wanted)
        writer.place(self.node, self.emit(writer, tensor, order), self.axis, order)


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
    """Tensors joined along their channels."""

    node: fx.Node
    operands: tuple[fx.Node, ...]
    widths: tuple[int, ...]
    axis: int

    def parts(self, channels: np.ndarray) -> Iterator[tuple[fx.Node, int, np.ndarray]]:
        """For each operand its first channel in the result, and its part of a vector over the result's channels."""
        start = 0
        for operand, width in zip(self.operands, self.widths, strict=True):
            yield operand, start, channels[start : start + width]
            start += width

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """Each operand's part of the live channels."""
        for operand, _, part in self.parts(live[self.node]):
            yield operand, part

    def write(self, writer: "Writer") -> None:
        """Emits the concatenation of the live channels of those operands that have any."""
        tensors, orders = [], []
        for operand, start, part in self.parts(writer.live[self.node]):
            if part.any():
                pieces, order = writer.pieces(self.node, operand, np.flatnonzero(part))
                tensors += pieces
                orders.append(order + start)
        node = writer.concat(tensors, self.axis)
        writer.place(self.node, node, self.axis, np.concatenate(orders))
