"""The channels of a network as groups of units: what goes when a channel goes, and where it can be scaled.

A channel is the filters that write it (of several convolutions where a residual add ties them), their biases, and its
share of the normalisations behind them. Columns of the layers that read it are removed with it by surgery, but need no
mask: they multiply zeros.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from pruneexp.groups import Norm, Slice, SliceGroup
from pruneexp.models.coupling import dependency_graph
from pruneexp.models.parts import CONVOLUTIONS

PRODUCERS = (*CONVOLUTIONS, nn.Linear)
CHANNEL_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d)
"""Normalisations that treat each channel for itself. Others (layer, group) change for all channels when one goes."""


class Channel(NamedTuple):
    """Output channel `index` of the module of that name."""

    module: str
    index: int


def channel_groups(
    network: nn.Module, example: Any, *, weights: Container[str], norm: Norm, gate_norms: bool
) -> list[SliceGroup]:
    """Groups of channels that compete: those that the same layers write and the same normalisations treat.

    example: inputs of the network. weights: names of the weights that may be pruned; a channel is left out when any
    of its filters is not among them, when it is an output of the network, or when a normalisation over several
    channels sees it. gate_norms: scale a channel behind its normalisation where there is one, which would undo a
    scaling of the filter; else scale the filters only.
    """
    coupled = _Coupled(network, example, weights)
    by_members: dict[tuple[str, ...], list[list[Channel]]] = defaultdict(list)
    for channels in coupled.units():
        by_members[tuple(sorted(channel.module for channel in channels))].append(channels)
    tensors = dict(network.named_parameters())
    return [
        _group(units, coupled, tensors, norm=norm, gate_norms=gate_norms)
        for units in by_members.values()
        if len(units) > 1
    ]


def _group(
    units: list[list[Channel]], coupled: "_Coupled", tensors: dict[str, nn.Parameter], *, norm: Norm, gate_norms: bool
) -> SliceGroup:
    positions: dict[str, dict[int, int]] = defaultdict(dict)  # module -> its channel -> unit
    for unit, channels in enumerate(units):
        for module, index in channels:
            positions[module][index] = unit
    slices: dict[str, list[Slice]] = {
        module: [
            Slice(f"{module}.{leaf}", 0, _unit_of(len(tensors[f"{module}.{leaf}"]), where))
            for leaf in ("weight", "bias")
            if f"{module}.{leaf}" in tensors
        ]
        for module, where in positions.items()
    }
    filters = [module for module in slices if module in coupled.producers]
    norms = [module for module in slices if module not in coupled.producers and slices[module]]
    gated = norms if gate_norms and norms else filters
    switched = norms or filters
    return SliceGroup(
        min(f"{module}.weight" for module in filters),
        tensors=tensors,
        slices=[part for parts in slices.values() for part in parts],
        scored=[slices[module][0] for module in filters],
        gates=[part for module in gated for part in slices[module]],
        switches=[part for module in switched for part in slices[module]],
        norm=norm,
        kind="channels",
    )


def _unit_of(size: int, where: dict[int, int]) -> torch.Tensor:
    return torch.tensor([where.get(position, -1) for position in range(size)])


class _Coupled:
    """Which channels must go together, from torch-pruning's dependency graph."""

    def __init__(self, network: nn.Module, example: Any, weights: Container[str]) -> None:
        modes = [(module, module.training) for module in network.modules()]
        self.graph = dependency_graph(network, example)
        for module, training in modes:
            module.training = training
        self.names = {module: name for name, module in network.named_modules()}
        self.weights = weights
        self.producers = {
            self.names[module]
            for module in self.graph.module2node
            if isinstance(module, PRODUCERS) and module in self.names
        }
        self.parent: dict[Channel, Channel] = {}
        self.blocked: set[Channel] = set()  # channels that cannot go
        self.read: set[Channel] = set()  # channels that some layer reads
        for name in sorted(self.producers):
            self._follow(network.get_submodule(name), name)

    def units(self) -> Iterable[list[Channel]]:
        """Sets of channels that go together, those that may be pruned, in the order of the network's modules."""
        members: dict[Channel, list[Channel]] = defaultdict(list)
        for channel in sorted(self.parent):
            members[self._root(channel)].append(channel)
        blocked = {self._root(channel) for channel in self.blocked}
        read = {self._root(channel) for channel in self.read}
        return [channels for root, channels in members.items() if root in read and root not in blocked]

    def _follow(self, module: nn.Module, name: str) -> None:
        """Ties each output channel of a layer to what torch-pruning would remove with it."""
        count = self.graph.get_out_channels(module)
        remove = self.graph.get_pruner_of_module(module).prune_out_channels
        for item in self.graph.get_pruning_group(module, remove, list(range(count))):
            other = item.dep.target.module
            pairs = list(zip(item.root_idxs, item.idxs, strict=True))
            if other not in self.names:
                continue
            if isinstance(other, PRODUCERS) and not self.graph.is_out_channel_pruning_fn(item.dep.handler):
                self.read |= {Channel(name, root) for root, _ in pairs}
                self._tie_inputs(other, name, pairs)
            elif isinstance(other, (*PRODUCERS, *CHANNEL_NORMS)):
                self._tie(name, self.names[other], pairs)
            elif next(other.parameters(recurse=False), None) is not None:
                self.blocked |= {Channel(name, root) for root, _ in pairs}
        if f"{name}.weight" not in self.weights:
            self.blocked |= {Channel(name, index) for index in range(count)}
        self._tie_conv_groups(module, lambda index: Channel(name, index), count)

    def _tie(self, name: str, other: str, pairs: list[tuple[int, int]]) -> None:
        for root, index in pairs:
            self._union(Channel(name, root), Channel(other, index))

    def _tie_inputs(self, reader: nn.Module, name: str, pairs: list[tuple[int, int]]) -> None:
        """A grouped convolution must lose as many inputs in each of its groups."""
        written = {index: root for root, index in pairs}
        if len(written) == getattr(reader, "in_channels", 0):
            self._tie_conv_groups(reader, lambda index: Channel(name, written[index]), len(written))

    def _tie_conv_groups(self, module: nn.Module, channel: Callable[[int], Channel], count: int) -> None:
        """Ties the channels at the same place of each group of a grouped convolution, which keeps the groups equal."""
        groups = getattr(module, "groups", 1)
        if groups == 1 or groups == module.in_channels == module.out_channels:  # depthwise: one channel each
            return
        for index in range(count // groups):
            for group in range(1, groups):
                self._union(channel(index), channel(index + group * (count // groups)))

    def _root(self, channel: Channel) -> Channel:
        self.parent.setdefault(channel, channel)
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def _union(self, one: Channel, other: Channel) -> None:
        roots = sorted((self._root(one), self._root(other)))
        self.parent[roots[1]] = roots[0]
