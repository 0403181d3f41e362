"""The rule of layers that read some channels and make others: convolutions and linear layers."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from pruneexp.surgery.graph.operators import TRANSPOSED
from pruneexp.surgery.graph.rules import Live, Rule

if TYPE_CHECKING:
    from pruneexp.surgery.graph.writer import Writer


@dataclass
class Layer(Rule):
    """A convolution or linear layer that ignores some of the channels it reads.

    keep: per input channel (input feature of a linear layer), whether the layer reads it. slots: of the inputs;
    features of one channel of a flattened map share a slot and are read together. reads: what it reads although some
    of it may be ignored, by weights of zero; at least `keep`.

    Of a grouped convolution every group that is left has the same number of inputs and of outputs, at least one: where
    masks leave fewer, channels that are not needed stay, on the input side with zero weights.
    """

    node: fx.Node
    source: fx.Node
    axis: int
    module: nn.Module
    keep: np.ndarray
    reads: np.ndarray
    slots: np.ndarray

    @property
    def groups(self) -> int:
        """Of the convolution; 1 for a linear layer."""
        return getattr(self.module, "groups", 1)

    def demand(self, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
        """The kept inputs of groups with a live output, and the outputs that make all groups alike."""
        alive = live[self.node].reshape(self.groups, -1).any(1)
        if not alive.any():
            return
        yield self.node, _even(live[self.node].reshape(self.groups, -1), alive, live[self.node]).reshape(-1)
        needed = _even(self.reads.reshape(self.groups, -1) & alive[:, None], alive, live[self.source]).reshape(-1)
        if self.groups == 1:
            needed = np.isin(self.slots, self.slots[needed])
        yield self.source, needed

    def needed(self, live: Live) -> np.ndarray:
        """The inputs that the layer reads (bool), for final liveness."""
        return dict(self.demand(live))[self.source]

    def in_groups(self, wanted: np.ndarray) -> list[np.ndarray]:
        """Input channels split by group, groups without any left out; in the order in which they were given."""
        group = wanted // (len(self.keep) // self.groups)
        return [wanted[group == g] for g in dict.fromkeys(group.tolist())]

    def write(self, writer: "Writer") -> None:
        """Emits a smaller copy of the layer that reads its channels in the order in which they lie."""
        blocks = self.in_groups(writer.in_order(self.source, np.flatnonzero(self.needed(writer.live))))
        wanted = np.concatenate(blocks)
        tensor, _ = writer.select(self.node, self.source, wanted, fixed=True)
        rows = self._rows(writer.ranked(self.node), blocks)
        module = copy.deepcopy(self.module)
        if hasattr(module, "groups"):
            module.groups = len(blocks)
        bias = None if module.bias is None else module.bias[np.concatenate(rows)]
        set_weight(module, self._weight(blocks, rows), bias)
        node = writer.call(self.node, module, tensor)
        writer.place(self.node, node, self.axis, np.concatenate(rows))

    def _rows(self, order: np.ndarray, blocks: list[np.ndarray]) -> list[np.ndarray]:
        """Output channels by group, groups as their inputs lie, in each the given order."""
        per_group = len(self.keep) // self.groups
        rows_per_group = self.outputs // self.groups
        return [order[order // rows_per_group == block[0] // per_group] for block in blocks]

    @property
    def outputs(self) -> int:
        """Output channels of the whole layer."""
        return self.module.weight.shape[1 if isinstance(self.module, TRANSPOSED) else 0]

    def _weight(self, blocks: list[np.ndarray], rows: list[np.ndarray]) -> Tensor:
        """The weight of the smaller layer; zero where it reads a channel that it should ignore."""
        weight = self.module.weight.detach()
        weight = weight.transpose(0, 1) if isinstance(self.module, TRANSPOSED) else weight
        per_group = len(self.keep) // self.groups
        parts = []
        for block, row in zip(blocks, rows, strict=True):
            kept = torch.as_tensor(self.keep[block], device=weight.device)
            part = weight[row][:, block % per_group]
            parts.append(part * kept.reshape(1, -1, *[1] * (weight.dim() - 2)))
        smaller = torch.cat(parts)
        return (smaller.transpose(0, 1) if isinstance(self.module, TRANSPOSED) else smaller).contiguous()


def input_channels(module: nn.Module) -> int:
    """The input channels of a convolution, the input features of a linear layer."""
    return module.in_features if isinstance(module, nn.Linear) else module.in_channels


def set_weight(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Gives a layer a weight and bias of another size, and the attributes that say so. In place."""
    module.weight = nn.Parameter(weight, requires_grad=module.weight.requires_grad)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach().clone(), requires_grad=module.bias.requires_grad)
    groups = getattr(module, "groups", 1)
    outputs, inputs = weight.shape[:2] if not isinstance(module, TRANSPOSED) else weight.shape[1::-1]
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = inputs, outputs
    else:
        module.in_channels, module.out_channels = inputs * groups, outputs


def _even(chosen: np.ndarray, alive: np.ndarray, liked: np.ndarray) -> np.ndarray:
    """`chosen` (groups, n) with channels added until all groups that are alive have as many as the fullest, or one.

    Channels that are `liked` (same channels, flat) come first, then those of lower index.
    """
    chosen = chosen.copy()
    count = max(1, int(chosen.sum(1).max()))
    liked = liked.reshape(chosen.shape)
    for group in np.flatnonzero(alive):
        missing = count - int(chosen[group].sum())
        spare = sorted(np.flatnonzero(~chosen[group]), key=lambda channel: not liked[group, channel])
        chosen[group, spare[:missing]] = True
    return chosen
