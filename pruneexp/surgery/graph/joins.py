"""Recognises operations on several tensors: element-wise ones, concatenations; and paddings."""

from typing import TYPE_CHECKING

import numpy as np
from torch import fx

from pruneexp.surgery.graph.combine import Concat, Join
from pruneexp.surgery.graph.labels import Labels
from pruneexp.surgery.graph.per_channel import function_rule, with_constants
from pruneexp.surgery.graph.rearrange import Pad
from pruneexp.surgery.graph.rules import PerChannel, Rule

if TYPE_CHECKING:
    from pruneexp.surgery.graph.recognise import Provenance
    from pruneexp.surgery.graph.writer import Writer


def join_rule(provenance: "Provenance", node: fx.Node) -> Rule | None:
    """The rule of an element-wise operation on tensors whose channels are on the same axis, counted from the last.

    Tensors that have one element there, or fewer axes, are read by all channels; numbers are no operands.
    """
    shape = provenance.traced.shape(node)
    sizes = {x: provenance.traced.shape(x) for x in node.all_input_nodes if provenance.traced.shape(x) is not None}
    known = [x for x in sizes if x in provenance.labels and len(provenance.labels[x].slots) > 1]
    ends = {len(sizes[x]) - provenance.labels[x].axis for x in known}
    if len(ends) != 1:
        return None
    end = ends.pop()
    axis = len(shape) - end
    full = [x for x in sizes if len(sizes[x]) >= end and sizes[x][-end] == shape[axis]]
    constants = {x: len(sizes[x]) - end for x in full if x.op == "get_attr"}
    operands = tuple(x for x in full if x.op != "get_attr")
    found = [provenance.labels_of(x, len(sizes[x]) - end) for x in operands]
    if not set(known) <= set(operands) or any(labels is None for labels in found):
        return None
    for labels in found[1:]:
        provenance.slots.unite(found[0].slots, labels.slots)
    provenance.labels[node] = Labels(axis, found[0].slots)
    if len(operands) > 1 or set(sizes) - set(operands) - set(constants):
        return Join(node, operands, constants, axis)

    def emit(writer: "Writer", tensor: fx.Node, order: np.ndarray) -> fx.Node:
        return with_constants(writer, node, {operands[0]: tensor}, order, constants)

    return PerChannel(node, operands[0], axis, emit)


def concat_rule(provenance: "Provenance", node: fx.Node) -> Rule | None:
    """The rule of a concatenation along the channels."""
    operands = node.args[0] if node.args else ()
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(operands, (list, tuple)) or not any(x in provenance.labels for x in operands):
        return None
    axis = dim % len(provenance.traced.shape(node))
    found = [provenance.labels_of(x, axis) for x in operands]
    if any(labels is None for labels in found):
        return None
    provenance.labels[node] = Labels(axis, np.concatenate([labels.slots for labels in found]))
    return Concat(node, tuple(operands), tuple(len(labels.slots) for labels in found), axis)


def pad_rule(provenance: "Provenance", node: fx.Node) -> Rule | None:
    """The rule of a padding: of channels by a constant, or of other axes."""
    source, amounts = node.args[0], node.args[1] if len(node.args) > 1 else ()
    labels = provenance.labels.get(source)
    if labels is None or not amounts or not all(isinstance(amount, int) for amount in amounts):
        return None
    at = 2 * (len(provenance.traced.shape(source)) - 1 - labels.axis)  # torch counts pairs from the last axis
    if not any(amounts[at:]):
        return function_rule(provenance, node, "relu")  # by itself, as any element-wise operation
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    if mode != "constant" or any(amounts[at + 2 :]) or min(amounts[at : at + 2]) < 0:
        return None
    width = len(labels.slots) + sum(amounts[at : at + 2])
    provenance.labels[node] = Labels(labels.axis, provenance.slots.new(width))
    return Pad(node, source, labels.axis, amounts[at], list(amounts[:at]), 0.0 if value is None else value)
