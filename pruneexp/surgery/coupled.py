"""Sets of channels that can only be removed together, from torch-pruning's dependency graph.

A `Coupling` numbers these sets. For every layer it says to which set each output channel belongs, and each input
channel; a normalisation or depthwise convolution has outputs only, its inputs are the same channels.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut
from pruneexp.models.coupling import dependency_graph
from pruneexp.surgery.operations import obstacle
from pruneexp.surgery.verify import tensors

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CHANNELWISE = (nn.modules.batchnorm._BatchNorm, nn.PReLU)

Side = tuple[nn.Module, str]  # a layer, and "out" or "in"


@dataclass
class Coupling:
    """sides: (layer, "out" or "in") -> int64 (channels,), the number of each channel's set, -1 for none. sets: how
    many there are. blocked: set -> why it must stay, for sets that no weights can free.
    """

    sides: dict[Side, Tensor] = field(default_factory=dict)
    sets: int = 0
    blocked: dict[int, str] = field(default_factory=dict)


class Index(NamedTuple):
    """A channel on its way through the graph; the names are those that torch-pruning's maps between layers want.

    idx: the channel's number where it is. root_idx: its set.
    """

    idx: int
    root_idx: int


def coupling(network: nn.Module, example: Any) -> Coupling:
    """The coupled channels of a network in eval mode whose parameters require gradients. example: as it takes it."""
    outputs: list[Any] = []
    hook = network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with warnings.catch_warnings():  # that torch-pruning would cut bare parameters; here they block what meets them
            warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
            graph = dependency_graph(network, example if isinstance(example, dict) else [example])
    finally:
        hook.remove()
    ends = {id(tensor.grad_fn) for tensor in tensors(outputs[-1])}
    walker = _Walker(ends, {module: name for name, module in network.named_modules()})
    for layer in [module for module in graph.module2node if isinstance(module, (*CONVOLUTIONS, nn.Linear))]:
        root = graph.get_pruner_of_module(layer)
        walker.walk(graph.module2node[layer], root.prune_out_channels, root.get_out_channels(layer))
    return walker.found


class _Walker:
    """Follows channels along torch-pruning's edges and notes every layer they come to.

    torch-pruning's own walk keeps one root of an index that several lead to, and does not end where a network shifts
    channels in a circle. This one ends, since it follows a set no further once that is blocked, and blocks those that
    leave the width of a layer.
    """

    def __init__(self, ends: set[int], names: dict[nn.Module, str]) -> None:
        """ends: ids of the operations whose results the network returns. names: of its layers."""
        self.found, self.ends, self.names = Coupling(), ends, names

    def walk(self, node: Any, handler: Any, width: int) -> None:
        """Makes a set of every output channel of a layer that is in none, and finds what belongs to it."""
        found = self.found
        free = torch.nonzero(_side(found, node.module, "out", width) < 0).flatten().tolist()
        indices = [Index(channel, found.sets + position) for position, channel in enumerate(free)]
        found.sets += len(free)
        seen: dict[tuple[int, Any], set[Index]] = {}
        open_ends = [(node, handler, indices)]
        while open_ends:
            node, handler, indices = open_ends.pop()
            visited = seen.setdefault((id(node), handler), set())
            fresh = [index for index in indices if index not in visited and index.root_idx not in found.blocked]
            visited.update(fresh)
            self._enter(node, handler, fresh)
            fresh = [index for index in fresh if index.root_idx not in found.blocked]
            for edge in node.dependencies if fresh else ():
                if edge.is_triggered_by(handler):
                    arrived = fresh
                    for mapping in edge.index_mapping:
                        arrived = arrived if mapping is None else mapping(arrived)
                    open_ends.append((edge.target, edge.handler, [Index(*index) for index in arrived]))

    def _enter(self, node: Any, handler: Any, indices: list[Index]) -> None:
        """Notes channels that have come to a node."""
        layer, role = node.module, "in" if handler.__name__ == "prune_in_channels" else "out"
        if (not node.outputs or id(node.grad_fn) in self.ends) and role != "in":
            self._block(indices, "is part of the network's output")
        width = _width(layer, role)
        if width is None:
            self._block(indices, obstacle(node))
            return
        side, name = _side(self.found, layer, role, width), self.names.get(layer, type(layer).__name__)
        for index in indices:
            other = int(side[index.idx]) if index.idx < width else None
            if other is None:
                self._block([index], f"is broadcast with the {width} channels of {name}")
            elif other in (-1, index.root_idx):
                side[index.idx] = index.root_idx
            else:
                reason = self.found.blocked.get(other, f"is coupled in more than one way at {name}")
                self._block([index, Index(index.idx, other)], reason)

    def _block(self, indices: list[Index], reason: str | None) -> None:
        if reason is not None:
            self.found.blocked.update(dict.fromkeys((index.root_idx for index in indices), reason))


def _side(found: Coupling, layer: nn.Module, role: str, width: int) -> Tensor:
    return found.sides.setdefault((layer, role), torch.full((width,), -1))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution keeps every channel for itself."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _width(layer: Any, role: str) -> int | None:
    """The number of channels on a side of a layer that can lose some, None for anything else."""
    if isinstance(layer, (*CONVOLUTIONS, ZeroPadShortcut)):
        # torch-pruning takes any convolution with as many groups as outputs for a depthwise one.
        odd = getattr(layer, "groups", 1) == layer.out_channels > 1 and not is_depthwise(layer)
        return None if odd else layer.in_channels if role == "in" else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if role == "in" else layer.out_features
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return layer.num_features
    if isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        return layer.num_parameters
    return None
