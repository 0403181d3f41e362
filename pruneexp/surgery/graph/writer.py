"""Writes the smaller graph: where the channels of every tensor lie in it, and how they are picked from there."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pruneexp.surgery.graph.labels import Labels
from pruneexp.surgery.graph.rules import Live
from pruneexp.surgery.graph.trace import Traced

WHOLE, SLICE, COPY = "whole", "slice", "copy"


@dataclass(frozen=True)
class Placed:
    """A tensor of the new graph. positions: for every channel of the old tensor its place in it, or -1."""

    node: fx.Node
    axis: int
    positions: np.ndarray
    width: int

    def is_complete(self) -> bool:
        """Whether all places hold channels of the old tensor."""
        return int((self.positions >= 0).sum()) == self.width

    def kind(self, order: np.ndarray) -> str:
        """How these channels can be read in this order: the whole tensor, a slice of it, or by a copy."""
        places = self.positions[order]
        if not len(places) or (np.diff(places) != 1).any():
            return COPY
        return WHOLE if len(places) == self.width else SLICE


class Writer:
    """State of the writing; the rules of the old graph's nodes call its methods.

    rank: class -> place in the order that producers give their channels; None keeps the order of the dense network.
    classes: node -> class of each channel. reads: reader -> source -> whole, slice
    or copy, the worst of several.
    """

    def __init__(
        self, traced: Traced, labels: dict[fx.Node, Labels], live: Live, classes: Live, rank: dict[int, int] | None
    ) -> None:
        self.traced, self.labels, self.live, self.classes, self.rank = traced, labels, live, classes, rank
        self.graph = fx.Graph()
        self.device = next(traced.module.parameters()).device
        self.environment: dict[fx.Node, Any] = {}
        self.placed: dict[fx.Node, Placed] = {}
        self.attributes: dict[str, Any] = {}
        self.reads: dict[fx.Node, dict[fx.Node, str]] = {}
        self._selected: dict[tuple[fx.Node, tuple[int, ...]], fx.Node] = {}

    def ranked(self, node: fx.Node) -> np.ndarray:
        """The live channels of a node's output in the order that the ranks give them."""
        live = np.flatnonzero(self.live[node])
        classes = self.classes[node][live].tolist()
        if self.rank is None or any(c not in self.rank for c in classes):
            return live
        return live[np.argsort([self.rank[c] for c in classes], kind="stable")]

    def place(self, node: fx.Node, new: fx.Node, axis: int, order: np.ndarray) -> None:
        """Notes that `new` holds the channels `order` of the old node."""
        positions = np.full(len(self.live[node]), -1)
        positions[order] = np.arange(len(order))
        self.environment[node] = new
        self.placed[node] = Placed(new, axis, positions, len(order))

    def is_reordered(self, node: fx.Node) -> bool:
        """Whether a node's output channels lie in another order than in the dense network."""
        positions = self.placed[node].positions
        return bool((np.diff(positions[positions >= 0]) < 0).any())

    def alias(self, node: fx.Node, source: fx.Node, channels: np.ndarray) -> None:
        """Notes that channel j of a node is channel `channels[j]` of `source`, in the same tensor."""
        placed = self.placed[source]
        self.environment[node] = placed.node
        self.placed[node] = Placed(placed.node, placed.axis, placed.positions[channels], placed.width)

    def in_order(self, source: fx.Node, channels: np.ndarray) -> np.ndarray:
        """The channels in the order in which they lie."""
        return channels[np.argsort(self.placed[source].positions[channels], kind="stable")]

    def is_copy(self, source: fx.Node, channels: np.ndarray, *, fixed: bool = False) -> bool:
        """Whether reading these channels, in any order or in this one, takes a copy."""
        order = channels if fixed else self.in_order(source, channels)
        return self.placed[source].kind(order) == COPY

    def select(
        self, reader: fx.Node, source: fx.Node, channels: np.ndarray, *, fixed: bool = False
    ) -> tuple[fx.Node, np.ndarray]:
        """A tensor of these channels of `source`, and their order in it: the given one if fixed."""
        placed = self.placed[source]
        order = channels if fixed else self.in_order(source, channels)
        places = placed.positions[order]
        if (places < 0).any():
            raise AssertionError(f"{reader.name} reads channels of {source.name} that were removed")
        kind = placed.kind(order)
        kinds = self.reads.setdefault(reader, {})
        kinds[source] = max(kind, kinds.get(source, WHOLE), key=(WHOLE, SLICE, COPY).index)
        if kind == WHOLE:
            return placed.node, order
        key = (placed.node, tuple(places.tolist()))
        if key not in self._selected:
            slice_of = (placed.node, placed.axis, int(places[0]), len(places))
            sliced = kind == SLICE
            self._selected[key] = (
                self.graph.call_function(torch.narrow, slice_of)
                if sliced
                else self.index(placed.node, placed.axis, places)
            )
        return self._selected[key], order

    def index(self, tensor: fx.Node, axis: int, places: np.ndarray) -> fx.Node:
        """A copy of some channels."""
        name = f"channels_of_{tensor.name}_{len(self.attributes)}"
        self.attributes[name] = torch.as_tensor(places, dtype=torch.long, device=self.device)
        return self.graph.call_function(torch.index_select, (tensor, axis, self.graph.get_attr(name)))

    def concat(self, tensors: list[fx.Node], axis: int) -> fx.Node:
        """The concatenation, none for a single tensor."""
        return tensors[0] if len(tensors) == 1 else self.graph.call_function(torch.cat, (tensors, axis))

    def pad(self, arguments: tuple) -> fx.Node:
        """A padding with a constant."""
        return self.graph.call_function(F.pad, arguments)

    def size(self, source: fx.Node, dim: int) -> int | fx.Node:
        """The size of an axis: a number for that of the channels, as in the dense network, otherwise a node."""
        if dim == self.labels[source].axis:
            return len(self.live[source])
        return self.graph.call_method("size", (self.placed[source].node, dim))

    def constant(self, node: fx.Node, order: np.ndarray, axis: int) -> fx.Node:
        """The stored tensor of a get_attr node, with these channels of its axis."""
        whole = attribute(self.traced.module, node.target)
        part = whole.detach().index_select(axis, torch.as_tensor(order, device=whole.device))
        return self._stored(node.target, part, whole)

    def _stored(self, name: str, tensor: Tensor, like: Tensor) -> fx.Node:
        """A node for a tensor that is kept under this name, or one like it where the name holds another tensor."""
        known = self.attributes.get(name)
        if known is not None and not (known.shape == tensor.shape and torch.equal(known, tensor)):
            name = f"{name}_{len(self.attributes)}"
        is_parameter = isinstance(like, nn.Parameter)
        self.attributes[name] = nn.Parameter(tensor, requires_grad=like.requires_grad) if is_parameter else tensor
        return self.graph.get_attr(name)

    def call(self, node: fx.Node, module: nn.Module, tensor: fx.Node) -> fx.Node:
        """A call of `module`, stored under the name of the old node's module."""
        self.attributes[node.target] = module
        return self.graph.call_module(node.target, (tensor, *node.args[1:]), dict(node.kwargs))

    def copy(self, node: fx.Node, chosen: dict[fx.Node, Any] | None = None) -> fx.Node:
        """The old operation on `chosen` inputs; all others as they were in the dense network."""
        chosen = chosen or {}
        new = self.graph.node_copy(
            node, lambda source: chosen[source] if source in chosen else self.whole(node, source)
        )
        if node.op == "call_module":
            self.attributes.setdefault(node.target, copy.deepcopy(self.traced.module.get_submodule(node.target)))
        self.environment[node] = new
        if node in self.labels and not chosen:
            self.place(node, new, self.labels[node].axis, np.arange(len(self.live[node])))
        return new

    def whole(self, reader: fx.Node, source: fx.Node) -> Any:
        """All channels of a tensor in their first order, or whatever else a node gave."""
        if source in self.placed:
            return self.select(reader, source, np.arange(len(self.live[source])), fixed=True)[0]
        if source not in self.environment and source.op == "get_attr":
            stored = attribute(self.traced.module, source.target)
            self.environment[source] = self._stored(source.target, stored.detach().clone(), stored)
        return self.environment[source]


def attribute(module: nn.Module, target: str) -> nn.Module | Tensor:
    """What a dotted name stands for."""
    for name in target.split("."):
        module = getattr(module, name)
    return module
