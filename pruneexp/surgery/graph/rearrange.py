"""Rules of operations that pick, repeat or pad channels without computing anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import fx

from pruneexp.surgery.graph.rules import Live, Rule

if TYPE_CHECKING:
    from pruneexp.surgery.graph.writer import Writer


@dataclass
class Gather(Rule):
    """Output channel j is channel `channels[j]` of `source`: a chunk, a slice, a channel shuffle.

    Nothing is emitted: whoever reads the output picks its channels from the source.
    """

    node: fx.Node
    source: fx.Node
    channels: np.ndarray

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The source channels behind the live ones."""
        yield self.source, self.behind(live[self.node], live[self.source])

    def behind(self, wanted: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The source channels (bool, shaped as `like`) behind some output channels (bool)."""
        needed = np.zeros_like(like)
        needed[self.channels[wanted]] = True
        return needed

    def write(self, writer: "Writer") -> None:
        """Notes where the channels are."""
        writer.alias(self.node, self.source, self.channels)


@dataclass
class Flatten(Rule):
    """The channel axis takes in all axes after it: feature c * spread + p is element p of channel c."""

    node: fx.Node
    source: fx.Node
    axis: int
    spread: int

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The channels with a live feature."""
        yield self.source, live[self.node].reshape(-1, self.spread).any(1)

    def write(self, writer: "Writer") -> None:
        """Emits the flattening; every channel brings all its features."""
        channels = np.flatnonzero(writer.live[self.node].reshape(-1, self.spread).any(1))
        tensor, order = writer.select(self.node, self.source, channels)
        node = writer.graph.call_method("flatten", (tensor, self.axis))
        features = order[:, None] * self.spread + np.arange(self.spread)
        writer.place(self.node, node, self.axis, features.reshape(-1))


@dataclass
class Pad(Rule):
    """`before` and `after` channels of a constant around those of `source`. The constant channels are slots too.

    other: padding of the axes after the channels', as torch's `pad` takes it.
    """

    node: fx.Node
    source: fx.Node
    axis: int
    before: int
    other: list[int]
    value: float

    def inner(self, channels: np.ndarray, width: int) -> np.ndarray:
        """The part of a vector over the output's channels that belongs to the source's."""
        return channels[self.before : self.before + width]

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The live channels that are not constant."""
        yield self.source, self.inner(live[self.node], len(live[self.source]))

    def write(self, writer: "Writer") -> None:
        """Emits a padding where the source's channels stay together, otherwise one constant channel and an index."""
        order = writer.ranked(self.node) - self.before
        real = (order >= 0) & (order < len(writer.live[self.source]))
        if not real.any():
            raise ValueError(f"{self.node.name}: only the constant channels of a padding are read; keep one real channel")
        first, last = np.flatnonzero(real)[[0, -1]]
        together = bool(real[first : last + 1].all())
        tensor, got = writer.select(self.node, self.source, order[real], fixed=together)
        ends = [int(first), int(len(order) - 1 - last)] if together else [0, 1]
        arguments = (tensor, [*self.other, *ends], "constant", self.value)
        node = writer.pad(arguments)
        if not together:
            place = {channel: position for position, channel in enumerate(got.tolist())}
            index = np.array([place.get(channel, len(got)) for channel in order.tolist()])
            node = writer.index(node, self.axis, index)
        writer.place(self.node, node, self.axis, order + self.before)


@dataclass
class Size(Rule):
    """The size of a tensor, all of it or one axis; that of the channel axis stays what it was in the dense network."""

    node: fx.Node
    source: fx.Node
    dims: list[int] | int

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """One channel, so that there is a tensor to ask."""
        if not live[self.source].any():
            one = np.zeros_like(live[self.source])
            one[:1] = True
            yield self.source, one

    def write(self, writer: "Writer") -> None:
        """Emits the sizes of axes that pruning leaves alone, as single numbers."""
        dims = [self.dims] if isinstance(self.dims, int) else self.dims
        sizes = tuple(writer.size(self.source, dim) for dim in dims)
        writer.environment[self.node] = sizes[0] if isinstance(self.dims, int) else sizes


@dataclass
class Known(Rule):
    """A value that pruning does not change, such as the number of a tensor's axes."""

    node: fx.Node
    value: object

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """Nothing."""
        yield from ()

    def write(self, writer: "Writer") -> None:
        """Notes the value."""
        writer.environment[self.node] = self.value
