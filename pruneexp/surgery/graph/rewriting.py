"""Writes the smaller graph node by node, and counts how its tensors are read."""

import operator
from collections import Counter

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from pruneexp.surgery.graph.combine import Concat
from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.operators import NORMS
from pruneexp.surgery.graph.per_channel import masked
from pruneexp.surgery.graph.rearrange import Flatten
from pruneexp.surgery.graph.recognise import LAYERS, Provenance
from pruneexp.surgery.graph.rules import Live, PerChannel
from pruneexp.surgery.graph.writer import COPY, SLICE, WHOLE, Writer

MAKERS = (torch.cat, torch.index_select, torch.add, operator.add, operator.mul)
"""Functions whose result is a tensor of its own, never a view."""


def written(provenance: Provenance, live: Live, rank: dict[int, int] | None) -> tuple[fx.GraphModule, Writer]:
    """The smaller network and the writer that made it. rank: see `Writer`."""
    traced = provenance.traced
    writer = Writer(traced, provenance.labels, live, provenance.classes(), rank)
    for node in traced.module.graph.nodes:
        rule = provenance.rules.get(node)
        if rule is None:
            if node.op != "get_attr":  # stored tensors are written where they are used
                _number(writer, node)
        elif node not in provenance.labels or live[node].any():
            if (
                node.op == "call_module"
                and not isinstance(rule, (Layer, PerChannel))
                and node.target in provenance.keep
            ):
                module = traced.module.get_submodule(node.target)
                writer.attributes[node.target] = masked(module, provenance.keep[node.target])
            rule.write(writer)
    module = fx.GraphModule(writer.attributes, writer.graph)
    module.graph.eliminate_dead_code()
    module = fx.GraphModule(module, module.graph, type(traced.module).__name__)  # only what is still used
    _restore_in_place(module)
    return module.eval(), writer


def _number(writer: Writer, node: fx.Node) -> None:
    """Computes with numbers: now where they are known, otherwise in the new graph."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: writer.environment[source])
    if node.op == "call_function" and not any(isinstance(x, fx.Node) for x in tree_leaves((args, kwargs))):
        writer.environment[node] = node.target(*args, **kwargs)
    elif node.op == "call_function" and node.target is operator.getitem and isinstance(args[0], tuple):
        writer.environment[node] = args[0][args[1]]
    else:
        writer.environment[node] = writer.graph.create_node(node.op, node.target, args, kwargs, node.name)


def _restore_in_place(module: fx.GraphModule) -> None:
    """Lets activations overwrite a tensor that was made for them alone, as most networks do to save memory."""
    allowed: dict[str, bool] = {}
    for node in module.graph.nodes:
        if node.op == "call_module" and hasattr(module.get_submodule(node.target), "inplace"):
            source = node.args[0]
            maker = module.get_submodule(source.target) if source.op == "call_module" else source.target
            alone = len(source.users) == 1 and (type(maker) in (*LAYERS, *NORMS) or maker in MAKERS)
            allowed[node.target] = alone and allowed.get(node.target, True)
    for target, alone in allowed.items():
        module.get_submodule(target).inplace = alone


def reads_of(provenance: Provenance, writer: Writer) -> tuple[Counter[str], Counter[str]]:
    """How many layers, and how many other operations, read a whole tensor, a slice, or a copy.

    A layer is counted with the worst of its own read and those of the operations before it that treat channels by
    themselves, as far as the tensor that they share with others, and of a concatenation there.
    """
    layers: Counter[str] = Counter()
    others: Counter[str] = Counter()
    worst: dict[fx.Node, str] = {}
    for node, kinds in writer.reads.items():
        passed = (Concat, Flatten, PerChannel)
        before = [worst[source] for source in kinds if isinstance(provenance.rules[source], passed) and source in worst]
        worst[node] = max([*kinds.values(), *before], key=(WHOLE, SLICE, COPY).index)
        if isinstance(provenance.rules[node], Layer):
            layers[worst[node]] += 1
        else:
            others.update(kinds.values())
    return layers, others
