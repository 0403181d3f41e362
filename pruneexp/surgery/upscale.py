"""Export of networks whose layers were pruned without regard to each other: UPSCALE.

Wan, Hao et al. 2023, "UPSCALE: Unconstrained Channel Pruning", ICML (arXiv:2307.08771). Where several layers read one
tensor, each may ignore other channels of it. Three exports compute the same function:

- "constrained": a channel goes only if no layer reads any channel that is coupled to it; layers read all that is left
  and have zero weights where they ignore it. Nothing is copied, and the least is saved. (The paper's constrained
  export prunes the same set everywhere instead, and so loses channels that some layers wanted.)
- "unordered": every layer reads just its channels; where they do not lie together they are copied.
- "unconstrained": the same, after channels were re-ordered in the layers that produce them, so that as many layers as
  possible read a slice, which is a view. See `pruneexp.surgery.graph.ordering` for what is the paper's and what ours.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruneexp.measure.flops import macs
from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.liveness import liveness, read_everything
from pruneexp.surgery.graph.ordering import order_classes
from pruneexp.surgery.graph.recognise import Provenance
from pruneexp.surgery.graph.rewriting import reads_of, written
from pruneexp.surgery.graph.trace import inputs_of, trace
from pruneexp.surgery.graph.writer import COPY, SLICE, WHOLE
from pruneexp.surgery.keep import checked
from pruneexp.surgery.masked import difference, masked_copy

MODES = ("constrained", "unordered", "unconstrained")
TOLERANCE = 1e-6
"""Largest difference from the masked network in float64, against its largest output. Ours; float64 leaves 1e-14."""


@dataclass(frozen=True)
class Reads:
    """How many readers get a whole tensor, a slice of one (a view), or a copy of some of its channels."""

    whole: int
    slice: int
    copy: int


@dataclass(frozen=True)
class Report:
    """What an export did.

    layers: reads by convolutions and linear layers, each with the worst of what happens between the tensor it shares
    with others and itself. layers_unordered: the same without re-ordering. others: reads of sums, concatenations,
    paddings and activations. reordered: layers whose output channels changed their order. macs: of one example.
    difference: from the masked network, in float64, against the largest output. change: the same from the network as it
    was given; as small where its weights already hold zeros for all that is ignored.
    """

    mode: str
    layers: Reads
    layers_unordered: Reads
    others: Reads
    others_unordered: Reads
    reordered: tuple[str, ...]
    parameters: int
    parameters_dense: int
    macs: int
    macs_dense: int
    difference: float
    change: float


@torch.no_grad()
def export(
    network: nn.Module, example: Any, keep: Mapping[str, Tensor], *, mode: str = "unconstrained"
) -> tuple[fx.GraphModule, Report]:
    """A smaller network that computes what `network` computes when its layers ignore some of their inputs.

    example: a batch, or a tuple of the network's arguments; its size is that of `macs`. keep: layer name -> bool per
    input channel, see `pruneexp.surgery.keep`; layers without one keep all. The result is in eval mode, has the
    parameter names of the network, and takes batches of any size; the network is left as it was.

    Channels that pass through an operation that is not understood all stay, in their order.

    Raises:
        ValueError: no such mode or layer, a mask of a wrong size, a network that torch.fx cannot trace.
        RuntimeError: the result differs from the masked network.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode}: choose one of {', '.join(MODES)}")
    masks = checked(network, keep)
    provenance = Provenance(trace(network, example), masks)
    live = liveness(provenance)
    if mode == "constrained":
        live = read_everything(provenance, live)
    plain, plain_writer = written(provenance, live, None)
    module, writer = plain, plain_writer
    if mode == "unconstrained":
        module, writer = written(provenance, live, order_classes(provenance, live))
    error = difference(masked_copy(network, provenance.keep), module, inputs_of(example))
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"{type(network).__name__}: the {mode} export differs from the masked network by {error:.1e}"
        )
    layers, others = reads_of(provenance, writer)
    layers_unordered, others_unordered = reads_of(provenance, plain_writer)
    one = tuple(x[:1] if isinstance(x, Tensor) else x for x in inputs_of(example))
    report = Report(
        mode=mode,
        layers=_reads(layers),
        layers_unordered=_reads(layers_unordered),
        others=_reads(others),
        others_unordered=_reads(others_unordered),
        reordered=tuple(
            node.target
            for node, rule in provenance.rules.items()
            if isinstance(rule, Layer) and live[node].any() and writer.is_reordered(node)
        ),
        parameters=_count(module),
        parameters_dense=_count(network),
        macs=_macs(module, one),
        macs_dense=_macs(network, one),
        difference=error,
        change=difference(network, module, inputs_of(example)),
    )
    return module, report


def _reads(counts: Counter[str]) -> Reads:
    return Reads(counts[WHOLE], counts[SLICE], counts[COPY])


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _macs(network: nn.Module, arguments: tuple[Any, ...]) -> int:
    """Of one example. `macs` takes a single input, so several are passed through a wrapper."""
    return macs(network, arguments[0]).total if len(arguments) == 1 else macs(_Spread(network), arguments).total


class _Spread(nn.Module):
    """A network that takes a tuple of its arguments."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, arguments: tuple[Any, ...]) -> Any:
        """The network's outputs."""
        return self.network(*arguments)
