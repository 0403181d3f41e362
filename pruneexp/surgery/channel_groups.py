"""The channels of a network as groups of units: what goes when a channel goes, and where it can be scaled.

A channel is the filters that write it (of several convolutions where a residual add ties them), their biases, and its
share of the normalisations behind them. Columns of the layers that read it are removed with it by surgery, but need no
mask: they multiply zeros.
"""

from collections import defaultdict
from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.groups import Norm, Slice, SliceGroup
from pruneexp.models.parts import CONVOLUTIONS
from pruneexp.surgery.coupled import Coupling, coupling, is_depthwise

PRODUCERS = (*CONVOLUTIONS, nn.Linear)

Member = tuple[str, int]  # a layer's name, and one of its output channels


def channel_groups(
    network: nn.Module, example: Any, *, weights: Container[str], norm: Norm, gate_norms: bool
) -> list[SliceGroup]:
    """Groups of channels that compete: those that the same layers write and the same normalisations treat.

    example: inputs of the network. weights: names of the weights that may be pruned; a channel is left out when any
    of its filters is not among them, when it is an output of the network, or when something meets it that surgery
    could not take a channel from, such as a normalisation over several channels. gate_norms: scale a channel behind
    its batch normalisation where there is one, which would undo a scaling of the filter; else scale the filters only.
    """
    by_members: dict[tuple[str, ...], list[list[Member]]] = defaultdict(list)
    for members in _units(network, _coupling(network, example), weights):
        by_members[tuple(name for name, _ in members)].append(members)
    tensors = dict(network.named_parameters())
    filters = {name for name, module in network.named_modules() if isinstance(module, PRODUCERS)}
    return [
        _group(units, tensors, filters, norm=norm, gate_norms=gate_norms)
        for units in by_members.values()
        if len(units) > 1
    ]


def _coupling(network: nn.Module, example: Any) -> Coupling:
    modes = [(module, module.training) for module in network.modules()]
    try:
        return coupling(network.eval(), example)
    finally:
        for module, training in modes:
            module.training = training


def _units(network: nn.Module, coupled: Coupling, weights: Container[str]) -> list[list[Member]]:
    """The channels that go together, those that may go, in the order of their first layer's name."""
    names = {module: name for name, module in network.named_modules()}
    ties = _Ties(coupled)
    members: dict[int, list[Member]] = defaultdict(list)
    read: set[int] = set()
    blocked = {ties.root(number) for number in coupled.blocked}
    for (layer, role), numbers in coupled.sides.items():
        sets = [ties.root(number) if number >= 0 else -1 for number in numbers.tolist()]
        producer = isinstance(layer, PRODUCERS)
        if role == "in":
            read |= set(sets) if producer else set()
        elif producer or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for channel, number in enumerate(sets):
                members[number].append((names[layer], channel))
            if producer and f"{names[layer]}.weight" not in weights:
                blocked |= set(sets)
    free = [sorted(channels) for number, channels in members.items() if number in read - blocked - {-1}]
    return sorted(free)


class _Ties:
    """Sets of channels that must go together since a grouped convolution has to keep its groups equal."""

    def __init__(self, coupled: Coupling) -> None:
        self.parent = list(range(coupled.sets))
        for (layer, _), numbers in coupled.sides.items():
            if isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer):
                for peers in numbers.view(layer.groups, -1).T.tolist():
                    self._join([number for number in peers if number >= 0])

    def root(self, number: int) -> int:
        """The number that stands for all that are tied together."""
        while self.parent[number] != number:
            number = self.parent[number]
        return number

    def _join(self, numbers: list[int]) -> None:
        roots = sorted({self.root(number) for number in numbers})
        for root in roots[1:]:
            self.parent[root] = roots[0]


def _group(
    units: list[list[Member]], tensors: dict[str, nn.Parameter], filters: set[str], *, norm: Norm, gate_norms: bool
) -> SliceGroup:
    places: dict[str, dict[int, int]] = defaultdict(dict)  # layer -> its channel -> unit
    for unit, members in enumerate(units):
        for name, channel in members:
            places[name][channel] = unit
    slices: dict[str, list[Slice]] = {
        name: [
            Slice(f"{name}.{leaf}", 0, _unit_of(len(tensors[f"{name}.{leaf}"]), where))
            for leaf in ("weight", "bias")
            if f"{name}.{leaf}" in tensors
        ]
        for name, where in places.items()
    }
    writers = [name for name in slices if name in filters]
    norms = [name for name in slices if name not in filters and slices[name]]
    switched = norms or writers
    gated = switched if gate_norms else writers
    return SliceGroup(
        f"{writers[0]}.weight",
        tensors=tensors,
        slices=[part for parts in slices.values() for part in parts],
        scored=[slices[name][0] for name in writers],
        gates=[part for name in gated for part in slices[name]],
        switches=[part for name in switched for part in slices[name]],
        norm=norm,
        kind="channels",
    )


def _unit_of(size: int, where: dict[int, int]) -> Tensor:
    return torch.tensor([where.get(channel, -1) for channel in range(size)])
