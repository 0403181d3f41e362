"""A network as a torch.fx graph without in-place operations, with the shape of every tensor in it."""

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


@dataclass(frozen=True)
class Traced:
    """A copy of a network in eval mode, as a graph.

    values: node -> what it gave for the example; tensors are replaced by tensors on the meta device, which have a
    shape and no numbers.
    """

    module: fx.GraphModule
    values: dict[fx.Node, Any]

    def shape(self, node: object) -> tuple[int, ...] | None:
        """The shape of a node that is a tensor, None for all else."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return tuple(value.shape) if isinstance(value, Tensor) else None


def inputs_of(example: Any) -> tuple[Any, ...]:
    """The positional arguments that an example stands for: itself, or its items where it is a tuple."""
    return example if isinstance(example, tuple) else (example,)


def trace(network: nn.Module, example: Any) -> Traced:
    """The graph of a copy of the network. example: a batch, or a tuple of the network's arguments.

    In-place operations become out-of-place ones with the same result, and assertions go.

    Raises:
        ValueError: torch.fx cannot follow the network's forward, or it has an in-place operation without an
            out-of-place one.
    """
    network = copy.deepcopy(network).eval()
    try:
        module = fx.GraphModule(network, fx.Tracer().trace(network))
    except Exception as error:  # a forward that meets a proxy can fail in any way
        raise ValueError(f"{type(network).__name__}: torch.fx cannot trace its forward ({error})") from error
    for node in list(module.graph.nodes):
        if node.target is torch._assert:
            module.graph.erase_node(node)
    for node in list(module.graph.nodes):
        _out_of_place(node, module)
    module.graph.eliminate_dead_code()  # only now: until here some results were used through the tensor written into
    module.graph.lint()
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*inputs_of(example))
    return Traced(module, recorder.values)


def _out_of_place(node: fx.Node, module: fx.GraphModule) -> None:
    """Turns an in-place operation into its out-of-place one; whoever used the overwritten tensor later uses that."""
    changed = False
    if node.op == "call_module":
        layer = module.get_submodule(node.target)
        changed = bool(getattr(layer, "inplace", False))
        if changed:
            layer.inplace = False
    elif node.op == "call_function" and node.target in IN_PLACE:
        node.target, changed = IN_PLACE[node.target], True
    elif node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
        if not callable(getattr(Tensor, node.target[:-1], None)):
            raise ValueError(
                f"{node.target} (node {node.name}): writes into a tensor; use an operation that returns one"
            )
        node.target, changed = node.target[:-1], True
    if node.kwargs.get("inplace"):
        node.kwargs, changed = {**node.kwargs, "inplace": False}, True
    if changed and node.args and isinstance(node.args[0], fx.Node):
        order = {other: position for position, other in enumerate(node.graph.nodes)}
        node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what every node gave, without the numbers of its tensors."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = tree_map_only(Tensor, lambda tensor: torch.empty(tensor.shape, device="meta"), result)
        return result
