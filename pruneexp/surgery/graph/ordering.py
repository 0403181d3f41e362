"""The order of channels in which as many reads as possible are slices.

The idea is UPSCALE's (Wan, Hao et al. 2023, "UPSCALE: Unconstrained Channel Pruning", ICML, arXiv:2307.08771):
producers that are coupled through sums form a segment, their output channels may be permuted alike, and a consumer
whose channels lie together reads a view instead of a copy. The paper orders a segment by greedily taking heavy paths in
the graph of consumers that share channels; neighbours on a path meet in their shared block.

Ours: whether some reads can all be slices is asked of a PQ-tree, which knows every order, nested reads included, and
the choice among them is a branch and bound; the reads of sums, concatenations and paddings count beside those of
layers, with less weight; a concatenation of tensors that nothing else reads may mix their channels, since it copies in
any case; the groups of a grouped convolution must lie one after the other.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import fx

from pruneexp.surgery.graph.combine import Concat, Join
from pruneexp.surgery.graph.consecutive import best_order
from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.liveness import pinned
from pruneexp.surgery.graph.rearrange import Flatten, Gather, Pad
from pruneexp.surgery.graph.recognise import Provenance
from pruneexp.surgery.graph.rules import Live, PerChannel

OTHER_READS = 0.25
"""Weight of a read by another operation than a layer. Ours: a copy costs the same, but layers are what is counted."""


@dataclass(frozen=True)
class Read:
    """Sets of classes that should lie together in the tensor of `source`."""

    source: fx.Node
    sets: tuple[frozenset[int], ...]
    weight: float


def order_classes(provenance: Provenance, live: Live) -> dict[int, int]:
    """Class -> place. Classes that are left out, and tensors that hold one of those, keep their order."""
    classes = provenance.classes()
    fixed = set(provenance.slots.classes(np.array(sorted(pinned(provenance, live)), dtype=int)).tolist())
    for node, rule in provenance.rules.items():
        if isinstance(rule, Layer) and rule.groups > 1:  # groups stay where they are
            fixed.update(classes[node].tolist())
    reads = [read for read in _reads(provenance, live, classes) if not any(one & fixed for one in read.sets)]
    segments = {read.source: _segments(provenance, live, classes, read.source) for read in reads}
    components = _components([*(part for parts in segments.values() for part in parts if not set(part) & fixed)], reads)
    rank: dict[int, int] = {}
    for elements, indices in components:
        inside = [reads[index] for index in indices]
        required = _structure([segments[read.source] for read in inside])
        biggest = sum(read.weight for read in inside)
        wanted = [(read.sets, read.weight + 1e-3 * _size(provenance, read) / biggest) for read in inside]
        order, _ = best_order(elements, required, wanted)
        order = _oriented(order, [segments[read.source] for read in inside])
        rank.update({element: place for place, element in enumerate(order)})
    return rank


def _size(provenance: Provenance, read: Read) -> float:
    """The share, in (0, 1), of a read's bytes for one example against a map of a million numbers."""
    shape, labels = provenance.traced.shape(read.source), provenance.labels[read.source]
    numbers = np.prod(shape[1:]) / len(labels.slots) * len(frozenset().union(*read.sets))
    return float(min(numbers / 1e6, 1.0))


def _reads(provenance: Provenance, live: Live, classes: Live) -> Iterator[Read]:
    """All reads of a part of a tensor, resolved to the tensor that is really there."""
    for node, rule in provenance.rules.items():
        if node not in classes or not live[node].any():
            continue
        weight = 1.0 if isinstance(rule, Layer) else OTHER_READS
        for source, wanted in _parts(rule, live):
            blocks = rule.in_groups(np.flatnonzero(wanted)) if isinstance(rule, Layer) and rule.groups > 1 else []
            sets = [classes[source][block] for block in blocks]
            root, needed = _behind(provenance, live, source, wanted)
            if blocks or (live[root] & ~needed).any():
                sets.append(classes[root][needed])
                yield Read(root, tuple(frozenset(one.tolist()) for one in sets), weight)


def _behind(provenance: Provenance, live: Live, source: fx.Node, wanted: np.ndarray) -> tuple[fx.Node, np.ndarray]:
    """The tensor that is really there behind one that only names some of its channels, and the wanted ones of it."""
    rule = provenance.rules[source]
    if isinstance(rule, Gather):
        return _behind(provenance, live, rule.source, rule.behind(wanted, live[rule.source]))
    return source, wanted


def _parts(rule: object, live: Live) -> Iterator[tuple[fx.Node, np.ndarray]]:
    """The tensors that a rule selects channels of, with those it selects."""
    if isinstance(rule, Layer):
        yield rule.source, rule.needed(live)
    elif isinstance(rule, Join):
        for operand in rule.operands:
            yield operand, live[rule.node]
    elif isinstance(rule, (Concat, Flatten, PerChannel, Pad)):
        for source, wanted in rule.demand(live):
            if source is not rule.node and wanted.any():
                yield source, wanted


def _segments(provenance: Provenance, live: Live, classes: Live, node: fx.Node) -> list[list[int]]:
    """The live classes of a tensor, one list per part whose order is free of the others'."""
    rule = provenance.rules[node]
    if isinstance(rule, Concat) and not rule.free:
        return [part for operand in rule.operands for part in _segments(provenance, live, classes, operand)]
    if isinstance(rule, PerChannel):
        inside = set(classes[node][live[node]].tolist())
        parts = _segments(provenance, live, classes, rule.source)
        return [kept for part in parts if (kept := [c for c in part if c in inside])]
    return [list(dict.fromkeys(classes[node][live[node]].tolist()))]


def _components(segments: list[list[int]], reads: list[Read]) -> list[tuple[list[int], list[int]]]:
    """Classes that share a segment or a read, with the reads (indices) of each such component."""
    groups = [*segments, *(sorted(frozenset().union(*read.sets)) for read in reads)]
    leader: dict[int, int] = {}

    def find(element: int) -> int:
        while leader.setdefault(element, element) != element:
            element = leader[element]
        return element

    for group in groups:
        for element in group:
            leader[find(element)] = find(group[0])
    members: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for element in sorted(leader):
        members[find(element)][0].append(element)
    for index, read in enumerate(reads):
        members[find(next(iter(read.sets[-1])))][1].append(index)
    return list(members.values())


def _structure(tensors: list[list[list[int]]]) -> list[frozenset[int]]:
    """Sets that keep the segments of concatenations together and in their sequence, or its reverse."""
    sets: dict[frozenset[int], None] = {}
    for parts in tensors:
        if len(parts) > 1:
            sets |= {frozenset(part): None for part in parts}
            sets |= {frozenset().union(*parts[:end]): None for end in range(2, len(parts))}
    return list(sets)


def _oriented(order: list[int], tensors: list[list[list[int]]]) -> list[int]:
    """The order or its reverse, whichever has more concatenations with their first segment before their last."""
    place = {element: index for index, element in enumerate(order)}
    forward = sum(
        1 if place[parts[0][0]] < place[parts[-1][0]] else -1
        for parts in tensors
        if len(parts) > 1 and parts[0][0] in place and parts[-1][0] in place
    )
    return order[::-1] if forward < 0 else order
