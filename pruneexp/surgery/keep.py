"""Which of its input channels every layer keeps, and a choice by magnitude.

A *keep* maps the name of a convolution or linear layer (or of its weight) to a bool tensor over the layer's input
channels, True = reads it. A linear layer behind a flattened map may have one bool per feature or one per channel.
What a layer ignores is zero at the layer's input and nowhere else.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruneexp.masks import count_to_prune
from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.operators import TRANSPOSED
from pruneexp.surgery.graph.recognise import LAYERS, Provenance
from pruneexp.surgery.graph.trace import trace

Keep = dict[str, Tensor]


def checked(network: nn.Module, keep: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Module name -> bool per input channel, as given; lengths are checked where the inputs are known.

    Raises:
        ValueError: no such layer, or not a bool tensor.
    """
    modules = dict(network.named_modules())
    result = {}
    for key, mask in keep.items():
        name = key.removesuffix(".weight")
        if not isinstance(modules.get(name), LAYERS):
            raise ValueError(f"keep[{key}]: the network has no convolution or linear layer of this name")
        if mask.dtype != torch.bool:
            raise ValueError(f"keep[{key}]: is {mask.dtype}; give a bool tensor, True where the channel is read")
        result[name] = mask.flatten().cpu().numpy()
    return result


def keep_by_magnitude(
    network: nn.Module, example: Any, ratio: float, *, norm: int = 2, exclude: Collection[str] = ()
) -> Keep:
    """Every layer ignores the `ratio` of its input channels that have the smallest weights, whatever the others do.

    ratio: in [0, 1), rounded to a number of channels per layer, of which at least one stays. norm: 1 or 2, of all
    weights of an input channel (Li et al. 2017, arXiv:1608.08710, use 1, for output channels). Grouped convolutions
    rank within each group, and layers that read a grouped convolution's output rank within its groups, so that all
    groups stay alike. Depthwise layers, layers that read the network's input, and those in `exclude` keep all.

    Raises:
        ValueError: no such ratio.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio={ratio}: must be in [0, 1)")
    provenance = Provenance(trace(network, example), {})
    made_in = {
        slot: (node.name, index // (rule.outputs // rule.groups))
        for node, rule in provenance.rules.items()
        if isinstance(rule, Layer) and rule.groups > 1
        for index, slot in enumerate(provenance.labels[node].slots.tolist())
    }
    keep = {}
    for node, rule in provenance.rules.items():
        if isinstance(rule, Layer) and node.target not in exclude and not set(rule.slots.tolist()) & provenance.frozen:
            keep[node.target] = _strongest(rule, ratio, norm, made_in)
    return keep


def _strongest(layer: Layer, ratio: float, norm: int, made_in: Mapping[int, Any]) -> Tensor:
    """The input features of a layer that it keeps; those of one channel stay or go together."""
    weight = layer.module.weight.detach().abs().double().pow(norm)
    weight = weight if isinstance(layer.module, TRANSPOSED) else weight.transpose(0, 1)
    if layer.groups > 1:  # (inputs of a group, outputs of all groups, ...) -> inputs of all groups
        weight = weight.unflatten(1, (layer.groups, -1)).movedim(1, 0).flatten(0, 1)
    features = weight.flatten(1).sum(1).cpu().numpy()
    slots, inverse = np.unique(layer.slots, return_inverse=True)
    scores = np.bincount(inverse, weights=features)
    first = np.unique(layer.slots, return_index=True)[1]
    per_group = len(layer.slots) // layer.groups
    group = [
        (made_in.get(slot), place // per_group) for slot, place in zip(slots.tolist(), first.tolist(), strict=True)
    ]
    kept = np.ones(len(slots), dtype=bool)
    for key in dict.fromkeys(group):
        members = np.array([index for index, other in enumerate(group) if other == key])
        count = min(count_to_prune(ratio, len(members)), len(members) - 1)
        kept[members[np.argsort(scores[members], kind="stable")[:count]]] = False
    return torch.as_tensor(kept[inverse])
