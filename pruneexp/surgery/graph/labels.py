"""Labels that say of every channel of every tensor which channels it was made from.

A *slot* is one output channel of one operation that makes new channels. An element-wise operation on several tensors
unites the slots it puts together; a set of united slots is a *class*. Channels of one class live and die together.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx


class Slots:
    """All slots of a graph, numbered from 0, with their classes: a union-find forest whose roots are the smallest."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self, count: int) -> np.ndarray:
        """The numbers of `count` new slots, each a class of its own."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def unite(self, left: np.ndarray, right: np.ndarray) -> None:
        """Makes one class of left[i] and right[i], for each i."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            root_a, root_b = self._root(a), self._root(b)
            self.parent[max(root_a, root_b)] = min(root_a, root_b)

    def classes(self, slots: np.ndarray) -> np.ndarray:
        """The class of each slot, named by its smallest slot."""
        return np.array([self._root(slot) for slot in slots.tolist()], dtype=int)

    def _root(self, slot: int) -> int:
        while self.parent[slot] != slot:
            self.parent[slot] = slot = self.parent[self.parent[slot]]
        return slot


@dataclass(frozen=True)
class Labels:
    """The channels of one tensor: the axis they are on, counted from 0, and the slot of each."""

    axis: int
    slots: np.ndarray


@dataclass(frozen=True)
class Moved:
    """A tensor that holds the elements of `root` in another arrangement, without an axis of its channels.

    elements: for each place the number of the element of `root`, counted in row-major order.
    """

    root: fx.Node
    elements: Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Found:
    """How a rearranged tensor relates to its root: channel j on `axis` is channel `source[j]` of the root.

    kind: "gather" if all other axes are as they were; "flatten" if the channel axis took in all that followed it
    (`source[j]` then has every channel once per element); "move" if other axes changed alike for all channels.
    """

    kind: str
    axis: int
    source: np.ndarray


def numbered(shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape that holds 0, 1, 2, ..."""
    return torch.arange(int(np.prod(shape))).reshape(shape)


def channel_of(elements: Tensor, shape: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor]:
    """For elements of a tensor of this shape: their channel, and their place among the elements of that channel."""
    inner = int(np.prod(shape[axis + 1 :]))
    block = inner * shape[axis]
    return elements // inner % shape[axis], elements // block * inner + elements % inner


def find_channels(elements: Tensor, shape: tuple[int, ...], axis: int) -> Found | None:
    """What became of the channels on `axis` of a tensor of this shape, or None if no axis of `elements` has them."""
    channel, place = channel_of(elements, shape, axis)
    if elements.dim() == axis + 1 and elements.shape[:axis] == shape[:axis] and elements.shape[axis] > shape[axis]:
        if torch.equal(elements.flatten(), torch.arange(elements.numel())):
            return Found("flatten", axis, channel.reshape(-1, elements.shape[axis])[0].numpy())
        return None
    for candidate in sorted(range(elements.dim()), key=lambda a: a != axis):
        channel_first = channel.movedim(candidate, 0).flatten(1)
        place_first = place.movedim(candidate, 0).flatten(1)
        if (
            channel_first.numel()
            and (channel_first == channel_first[:, :1]).all()
            and (place_first == place_first[:1]).all()
        ):
            source = channel_first[:, 0].numpy()
            same = candidate == axis and place_first.shape[1] == int(np.prod(shape)) // shape[axis]
            same = same and elements.dim() == len(shape)
            same = same and torch.equal(place_first[0], torch.arange(place_first.shape[1]))
            shaped = [size for a, size in enumerate(elements.shape) if a != candidate]
            same = same and shaped == [size for a, size in enumerate(shape) if a != axis]
            if same:
                return Found("gather", candidate, source)
            if len(source) == shape[axis] and np.array_equal(source, np.arange(shape[axis])):
                return Found("move", candidate, source)
    return None
