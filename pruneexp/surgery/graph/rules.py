"""What operations ask of their inputs, and how they are written into the smaller graph: the rules of single tensors.

A rule belongs to one node. `demand` says which channels of each input are needed for the live ones of its output;
`write` emits the operation for these channels only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    emit: (writer, input node, kept channels in their new order) -> node. axis: of the output's channels. shrinks:
    whether this operation, or one between it and the only reader, makes the tensor smaller, so that a copy of channels
    is cheaper later. widened: the output holds all channels that the input has, also where fewer are read of it: of a
    tensor with several readers, who would each pick theirs from it, a copy here would come on top. multiplies: whether
    this is a depthwise layer, whose work is not worth saving a copy.
    """

    node: fx.Node
    source: fx.Node
    axis: int
    emit: Callable[["Writer", fx.Node, np.ndarray], fx.Node]
    shrinks: bool = False
    widened: bool = False
    multiplies: bool = False

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
