"""Which of its input channels every layer keeps when weights, filters or channels were pruned by hard masks."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pruneexp.surgery.graph.combine import Concat, Join
from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.operators import TRANSPOSED, name_of
from pruneexp.surgery.graph.rearrange import Flatten, Gather, Pad
from pruneexp.surgery.graph.recognise import Provenance
from pruneexp.surgery.graph.rules import PerChannel, Rule
from pruneexp.surgery.graph.trace import trace
from pruneexp.surgery.keep import Keep

Gone = dict[fx.Node, np.ndarray]
"""Node -> bool per channel, True where nothing is left of it."""


def keep_from_masks(network: nn.Module, example: Any, masks: Mapping[str, Tensor]) -> Keep:
    """The keep of hard weight masks, such as a run's masks.safetensors.

    masks: parameter name -> bool, of the weight's shape or broadcastable to it, True = keep. An input channel whose
    weights are all pruned is ignored. An output channel whose weights are all pruned counts as gone, together with
    what normalisation and activation make of its zeros: layers ignore channels that stem from such channels alone
    (of a sum: all terms are gone; of a product: one factor is). Masks of single weights beyond that are left to the
    weights, which are expected to hold their zeros. Where normalisation turns zeros into other constants, the export
    computes something else than the network with the zeros in its weights: `Report.change` says by how much.
    """
    traced = trace(network, example)
    provenance = Provenance(traced, {})
    whole = {}
    for name, mask in masks.items():
        weight = network.get_parameter(name)
        whole[name.removesuffix(".weight")] = torch.broadcast_to(mask.bool().cpu(), weight.shape).numpy()
    gone: Gone = {}
    keep = {}
    for node, labels in provenance.labels.items():
        rule, mask = provenance.rules[node], whole.get(node.target)
        gone[node] = _gone(rule, gone, mask, np.zeros(len(labels.slots), dtype=bool))
        if isinstance(rule, Layer):
            kept = ~gone[rule.source] & (_read_columns(rule, mask) if mask is not None else True)
            if not kept.all():
                keep[node.target] = torch.as_tensor(kept)
    return keep


def _read_columns(layer: Layer, mask: np.ndarray) -> np.ndarray:
    """Input channels with a weight that is not pruned."""
    if isinstance(layer.module, TRANSPOSED):
        return mask.reshape(len(mask), -1).any(1)
    inputs = mask.reshape(layer.groups, -1, *mask.shape[1:2], int(np.prod(mask.shape[2:])))
    return inputs.any((1, 3)).reshape(-1)


@singledispatch
def _gone(rule: Rule, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    """Which channels of a rule's output count as gone. mask: of the weight of a layer. none: all False."""
    return none


@_gone.register
def _(rule: Layer, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    if mask is None:
        return none
    return ~np.moveaxis(mask, 1 if isinstance(rule.module, TRANSPOSED) else 0, 0).reshape(len(none), -1).any(1)


@_gone.register
def _(rule: PerChannel, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    return gone[rule.source] | (none if mask is None else ~mask.reshape(len(none), -1).any(1))


@_gone.register
def _(rule: Join, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    combine = np.logical_or if name_of(rule.node) == "mul" else np.logical_and
    return combine.reduce([gone[operand] for operand in rule.operands])


@_gone.register
def _(rule: Concat, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    return np.concatenate([gone[operand] for operand in rule.operands])


@_gone.register
def _(rule: Gather, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    return gone[rule.source][rule.channels]


@_gone.register
def _(rule: Flatten, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    return gone[rule.source].repeat(rule.spread)


@_gone.register
def _(rule: Pad, gone: Gone, mask: np.ndarray | None, none: np.ndarray) -> np.ndarray:
    after = len(none) - rule.before - len(gone[rule.source])
    return np.pad(gone[rule.source], (rule.before, after), constant_values=rule.value == 0)
