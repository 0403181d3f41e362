"""Recognises operations that only rearrange elements, by running them on the elements' numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, fx

from pruneexp.surgery.graph.labels import Labels, Moved, find_channels, numbered
from pruneexp.surgery.graph.rearrange import Flatten, Gather
from pruneexp.surgery.graph.rules import PerChannel, Rule, Verbatim

if TYPE_CHECKING:
    from pruneexp.surgery.graph.recognise import Provenance
    from pruneexp.surgery.graph.writer import Writer


def movement_rule(provenance: "Provenance", node: fx.Node) -> Rule | None:
    """The rule of a rearrangement (view, transpose, chunk, a slice, ...) of a tensor with labels, None for others.

    A chain of rearrangements, such as a channel shuffle, is looked at as a whole: what counts is where its elements
    came from, not what its steps were.
    """
    source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    if source in provenance.moved:
        root, elements = provenance.moved[source].root, provenance.moved[source].elements
    elif source in provenance.labels:
        root, elements = source, numbered(provenance.traced.shape(source))
    else:
        return None
    result = _run(provenance, node, elements)
    if not isinstance(result, Tensor):
        provenance.moved[node] = Moved(root, tuple(result))
        return Verbatim(node)
    labels = provenance.labels[root]
    found = find_channels(result, provenance.traced.shape(root), labels.axis)
    if found is None or (found.kind != "gather" and source is not root):
        provenance.moved[node] = Moved(root, result)
        return Verbatim(node)
    provenance.labels[node] = Labels(found.axis, labels.slots[found.source])
    if found.kind == "gather":
        return Gather(node, root, found.source)
    if found.kind == "flatten":
        return Flatten(node, root, found.axis, len(found.source) // len(labels.slots))

    def emit(writer: "Writer", tensor: fx.Node, order: np.ndarray) -> fx.Node:
        return _emit(writer, node, tensor, channels=len(order), axis=found.axis)

    return PerChannel(node, root, found.axis, emit)


def _run(provenance: "Provenance", node: fx.Node, elements: Tensor | tuple[Tensor, ...]) -> Any:
    """The operation on the numbers of elements; its other arguments as they were for the example."""
    source = node.args[0]
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs), lambda x: elements if x is source else provenance.traced.values[x]
    )
    if node.op == "call_module":  # nn.Flatten
        return provenance.traced.module.get_submodule(node.target)(*args)
    return (
        getattr(args[0], node.target)(*args[1:], **kwargs) if node.op == "call_method" else node.target(*args, **kwargs)
    )


def _emit(writer: "Writer", node: fx.Node, tensor: fx.Node, *, channels: int, axis: int) -> fx.Node:
    """Emits a rearrangement of axes other than the channels'; sizes of the channel axis are those of the new tensor."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in ("view", "reshape"):
        sizes = list(node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (list, tuple)) else node.args[1:])
        sizes = [writer.environment[size] if isinstance(size, fx.Node) else size for size in sizes]
        sizes[axis] = channels if any(size == -1 for a, size in enumerate(sizes) if a != axis) else -1
        return writer.graph.call_method("reshape", (tensor, *sizes))
    if name == "squeeze" and len(node.args) + len(node.kwargs) == 1:
        shape, channel_axis = writer.traced.shape(node.args[0]), writer.labels[node.args[0]].axis
        ones = tuple(a for a, size in enumerate(shape) if size == 1 and a != channel_axis)
        return writer.graph.call_method("squeeze", (tensor, ones))
    return writer.copy(node, {node.args[0]: tensor})
