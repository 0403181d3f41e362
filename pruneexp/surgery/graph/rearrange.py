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
    """Channels of a constant before and after those of `source`. All channels of the result are slots of their own.

    before: how many there are before. other: padding of the axes after the channels', as torch's `pad` takes it.
    """

    node: fx.Node
    source: fx.Node
    axis: int
    before: int
    other: list[int]
    value: float

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The live channels that are not constant, or one."""
        inner = live[self.node][self.before : self.before + len(live[self.source])].copy()
        if live[self.node].any() and not (inner | live[self.source]).any():
            inner[0] = True
        yield self.source, inner

    def write(self, writer: "Writer") -> None:
        """Emits a padding where the source's channels come in order, otherwise one constant channel and an index."""
        order = writer.ranked(self.node) - self.before
        real = (order >= 0) & (order < len(writer.live[self.source]))
        inner = np.flatnonzero(real)
        direct = len(inner) > 0 and inner[-1] - inner[0] == len(inner) - 1
        direct = direct and not writer.is_copy(self.source, order[inner], fixed=True)
        # A constant alone still takes its shape from a channel of the source.
        wanted = order[inner] if len(inner) else np.flatnonzero(writer.live[self.source])[:1]
        tensor, got = writer.select(self.node, self.source, wanted, fixed=direct)
        ends = [int(inner[0]), int(len(order) - 1 - inner[-1])] if direct else [0, 1]
        node = writer.pad((tensor, [*self.other, *ends], "constant", self.value))
        if not direct:
            index = np.full(len(order), len(got))
            index[inner] = np.argsort(got)[np.searchsorted(np.sort(got), order[inner])]
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
