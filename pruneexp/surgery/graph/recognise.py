"""Finds the rule of every node of a traced network, and the labels of every tensor."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from pruneexp.surgery.graph import operators
from pruneexp.surgery.graph.joins import concat_rule, join_rule, pad_rule
from pruneexp.surgery.graph.labels import Labels, Moved, Slots
from pruneexp.surgery.graph.layers import Layer, input_channels
from pruneexp.surgery.graph.movement import movement_rule
from pruneexp.surgery.graph.per_channel import function_rule, is_depthwise, module_rule
from pruneexp.surgery.graph.rearrange import Flatten, Known, Size
from pruneexp.surgery.graph.rules import Live, PerChannel, Rule
from pruneexp.surgery.graph.trace import Traced

LAYERS = (*operators.PRODUCTS, *operators.TRANSPOSED)


class Provenance:
    """Rules and labels of all nodes of a network. keep: module name -> bool per input channel.

    frozen: slots of tensors whose channels can be neither removed nor moved. moved: tensors without a channel axis.
    A node without a rule computes with numbers, not with tensors, or is a stored tensor.
    """

    def __init__(self, traced: Traced, keep: Mapping[str, np.ndarray]) -> None:
        self.traced, self.keep = traced, dict(keep)
        self.slots = Slots()
        self.labels: dict[fx.Node, Labels] = {}
        self.moved: dict[fx.Node, Moved] = {}
        self.rules: dict[fx.Node, Rule] = {}
        self.frozen: set[int] = set()
        self._calls = [node.target for node in traced.module.graph.nodes if node.op == "call_module"]
        for name in keep:
            if name not in self._calls:
                raise ValueError(
                    f"keep[{name}]: the network does not call this layer by itself, so nothing can be masked"
                )
        for node in traced.module.graph.nodes:
            rule = self._rule(node)
            if rule is not None:
                self.rules[node] = rule
        for node, rule in self.rules.items():
            if isinstance(rule, PerChannel):
                private, shrinks = self._private(node)
                rule.widened, rule.shrinks = not private, rule.shrinks or shrinks

    def labels_of(self, node: object, axis: int) -> Labels | None:
        """The labels of a tensor whose channels are on this axis; made here, frozen, for one that has none yet."""
        if not isinstance(node, fx.Node) or node.op == "get_attr" or node in self.moved:
            return None
        shape = self.traced.shape(node)
        if node not in self.labels and shape is not None and len(shape) > axis >= 0:
            self.labels[node] = Labels(axis, self.slots.new(shape[axis]))
            self.frozen.update(self.labels[node].slots.tolist())
        labels = self.labels.get(node)
        return labels if labels is not None and labels.axis == axis else None

    def classes(self) -> Live:
        """Node -> class of each channel."""
        return {node: self.slots.classes(labels.slots) for node, labels in self.labels.items()}

    def _private(self, node: fx.Node) -> tuple[bool, bool]:
        """Whether a tensor is for one layer alone, operations on single channels between them aside.

        The second value: whether one of these operations makes the tensor smaller.
        """
        users = [user for user in node.users if not isinstance(self.rules.get(user), (Size, Known))]
        rule = self.rules.get(users[0]) if len(users) == 1 else None
        if isinstance(rule, (PerChannel, Flatten)):
            private, shrinks = self._private(rule.node)
            later = isinstance(rule, PerChannel) and rule.shrinks
            return private, private and (shrinks or later) and not getattr(rule, "multiplies", False)
        return isinstance(rule, Layer), False

    def _rule(self, node: fx.Node) -> Rule | None:
        """The rule of a node; labels its output."""
        if node.op == "get_attr":
            return None
        rule = None
        if node.op == "call_module":
            rule = self._module(node)
        elif node.op in ("call_function", "call_method"):
            if any(isinstance(value, Tensor) for value in tree_leaves(self.traced.values[node])):
                rule = self._operation(node, operators.name_of(node))
            elif any(self.traced.shape(source) is not None for source in node.all_input_nodes):
                rule = self._question(node)
            else:
                return None
        return rule or Rule(node)

    def _operation(self, node: fx.Node, name: str) -> Rule | None:
        """The rule of a function or method that gives tensors."""
        finders = {
            operators.JOINS: join_rule,
            operators.CONCATENATIONS: concat_rule,
            operators.MOVEMENTS: movement_rule,
        }
        for names, find in finders.items():
            if name in names:
                return find(self, node)
        if not node.args or not isinstance(node.args[0], fx.Node):
            return None
        if name == "pad":
            return pad_rule(self, node)
        return function_rule(self, node, name) if name else None

    def _module(self, node: fx.Node) -> Rule | None:
        """The rule of a call of a module, if it is known."""
        module = self.traced.module.get_submodule(node.target)
        rule = self._known_module(node, module)
        if not isinstance(rule, Layer) and node.target in self.keep:
            self._check(node.target, self.keep[node.target], module)
        return rule

    def _check(self, name: str, keep: np.ndarray, module: nn.Module) -> None:
        if len(keep) != input_channels(module):
            raise ValueError(
                f"keep[{name}]: has {len(keep)} values; the layer has {input_channels(module)} input channels"
            )

    def _known_module(self, node: fx.Node, module: nn.Module) -> Rule | None:
        """The rule of a call of a module of torch on one tensor; none if several calls share its state."""
        shared = self._calls.count(node.target) > 1 and len(module.state_dict()) > 0
        if shared or not node.args or any(self.traced.shape(value) is None for value in (node, node.args[0])):
            return None
        if type(module) is nn.Flatten:
            return movement_rule(self, node)
        return self._layer(node, module) if type(module) in LAYERS else module_rule(self, node, module)

    def _layer(self, node: fx.Node, module: nn.Module) -> Rule | None:
        """The rule of a convolution or linear layer."""
        shape, linear = self.traced.shape(node), isinstance(module, nn.Linear)
        batched = linear or len(shape) == module.weight.dim()
        if is_depthwise(module) and node.args[0] in self.labels:
            return module_rule(self, node, module) if batched else None
        if not batched or (isinstance(module, operators.TRANSPOSED) and module.groups > 1):
            return None
        axis = len(shape) - 1 if linear else 1
        labels = self.labels_of(node.args[0], axis)
        if labels is None:
            return None
        keep = self.keep.get(node.target, np.ones(len(labels.slots), dtype=bool))
        if linear and len(keep) == len(set(labels.slots.tolist())):  # one per channel of a flattened map
            keep = keep[np.unique(labels.slots, return_inverse=True)[1]]
        self._check(node.target, keep, module)
        self.keep |= {node.target: keep} if node.target in self.keep else {}
        layer = Layer(node, node.args[0], axis, module, keep, keep, labels.slots)
        self.labels[node] = Labels(axis, self.slots.new(layer.outputs))
        return layer

    def _question(self, node: fx.Node) -> Rule | None:
        """The rule of a question for the size or the number of axes of a tensor with labels."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source not in self.labels:
            return None
        method = node.target if node.op == "call_method" else ""
        field = node.args[1] if node.target is getattr else ""
        every = list(range(len(self.traced.shape(source))))
        if method == "dim" or field == "ndim":
            return Known(node, self.traced.values[node])
        if field == "shape":
            return Size(node, source, every)
        if method == "size":
            dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return Size(node, source, every if dim is None else every[dim])
        return None
