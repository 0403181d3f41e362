"""Recognises operations that treat every channel by itself: activations, pooling, normalisation, depthwise layers."""

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from pruneexp.surgery.graph import operators
from pruneexp.surgery.graph.labels import Labels
from pruneexp.surgery.graph.rules import PerChannel, Rule

if TYPE_CHECKING:
    from pruneexp.surgery.graph.recognise import Provenance
    from pruneexp.surgery.graph.writer import Writer


def is_depthwise(module: nn.Module) -> bool:
    """Whether output channel c of a convolution depends on input channel c alone."""
    return (
        type(module) in operators.PRODUCTS
        and 1 < getattr(module, "groups", 1) == module.in_channels == module.out_channels
    )


def module_rule(provenance: "Provenance", node: fx.Node, module: nn.Module) -> Rule | None:
    """The rule of a module that treats channels by themselves, None for others."""
    source, shape = node.args[0], provenance.traced.shape(node.args[0])
    labels = provenance.labels.get(source)
    if labels is None or len(node.args) + len(node.kwargs) > 1:
        return None
    trailing = operators.POOLING_MODULES.get(type(module), 0)
    on_axis_one = type(module) in operators.NORMS or is_depthwise(module) or type(module) is nn.PReLU
    if not (on_axis_one or trailing or type(module) in operators.ELEMENTWISE_MODULES):
        return None
    if (on_axis_one and labels.axis != 1) or labels.axis >= len(shape) - trailing:
        return None
    keep = provenance.keep.get(node.target)

    def emit(writer: "Writer", tensor: fx.Node, order: np.ndarray) -> fx.Node:
        return writer.call(node, narrowed(module, order, len(labels.slots), keep), tensor)

    shrinks = _shrinks(provenance, node) and not is_depthwise(module)
    return _labelled(provenance, PerChannel(node, source, labels.axis, emit, shrinks, multiplies=is_depthwise(module)))


def function_rule(provenance: "Provenance", node: fx.Node, name: str) -> Rule | None:
    """The rule of a function or method of one tensor, and of stored tensors with one element per channel."""
    source = node.args[0] if node.args else None
    labels = provenance.labels.get(source)
    others = [x for x in node.all_input_nodes if x is not source and provenance.traced.shape(x) is not None]
    if labels is None or provenance.traced.shape(node) is None or any(x.op != "get_attr" for x in others):
        return None
    dims = len(provenance.traced.shape(source))
    axis: int | None = labels.axis
    if name in operators.POOLING:
        axis = axis if axis < dims - operators.POOLING[name] else None
    elif name in operators.REDUCTIONS:
        axis = _after_reduction(node, labels.axis, dims)
    elif name in ("batch_norm", "prelu"):
        axis = axis if axis == 1 else None
    elif name not in operators.ELEMENTWISE:
        axis = None
    if axis is None:
        return None
    constants = {x: 0 for x in others if provenance.traced.shape(x) == (len(labels.slots),)}

    def emit(writer: "Writer", tensor: fx.Node, order: np.ndarray) -> fx.Node:
        return with_constants(writer, node, {source: tensor}, order, constants)

    return _labelled(provenance, PerChannel(node, source, axis, emit, _shrinks(provenance, node)))


def with_constants(
    writer: "Writer", node: fx.Node, chosen: dict[fx.Node, fx.Node], order: np.ndarray, constants: dict[fx.Node, int]
) -> fx.Node:
    """Emits an operation on the chosen tensors and on these channels of stored ones (stored tensor -> its axis)."""
    parts = {constant: writer.constant(constant, order, axis) for constant, axis in constants.items()}
    return writer.copy(node, {**chosen, **parts})


def narrowed(module: nn.Module, order: np.ndarray, channels: int, keep: np.ndarray | None = None) -> nn.Module:
    """A copy of a per-channel module for some of its channels. keep: channels that it ignores have zero weights."""
    module = masked(module, keep)
    index = torch.as_tensor(order)
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.shape[0] == channels and channels > 1:
            part = nn.Parameter(parameter.detach()[index.to(parameter.device)], requires_grad=parameter.requires_grad)
            setattr(module, name, part)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.dim() and buffer.shape[0] == channels:
            setattr(module, name, buffer[index.to(buffer.device)])
    for name in ("num_features", "in_channels", "out_channels", "groups"):
        if hasattr(module, name):
            setattr(module, name, len(order))
    if getattr(module, "num_parameters", 1) > 1:
        module.num_parameters = len(order)
    return module


def masked(module: nn.Module, keep: np.ndarray | None) -> nn.Module:
    """A copy of a convolution or linear layer with zero weights for the inputs that it ignores."""
    module = copy.deepcopy(module)
    if keep is None:
        return module
    with torch.no_grad():
        weight, groups = module.weight, getattr(module, "groups", 1)
        kept = torch.as_tensor(keep, device=weight.device)
        if isinstance(module, operators.TRANSPOSED):
            weight.mul_(kept.reshape(-1, *[1] * (weight.dim() - 1)))
        else:  # rows of one group read the same inputs
            per_row = kept.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
            weight.mul_(per_row.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2)))
    return module


def _after_reduction(node: fx.Node, axis: int, dims: int) -> int | None:
    """Where the channels are after a mean or sum, None if it mixes them or runs over everything."""
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    over = [over] if isinstance(over, int) else over
    if not over or not all(isinstance(dim, int) for dim in over):
        return None
    over = {dim % dims for dim in over}
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    if axis in over:
        return None
    return axis if keeps else axis - sum(dim < axis for dim in over)


def _shrinks(provenance: "Provenance", node: fx.Node) -> bool:
    before, after = provenance.traced.shape(node.args[0]), provenance.traced.shape(node)
    return int(np.prod(after)) < int(np.prod(before))


def _labelled(provenance: "Provenance", rule: PerChannel) -> PerChannel:
    provenance.labels[rule.node] = Labels(rule.axis, provenance.labels[rule.source].slots)
    return rule
