"""Which channels of every tensor are needed in the end."""

import numpy as np
from torch import fx

from pruneexp.surgery.graph.layers import Layer
from pruneexp.surgery.graph.recognise import Provenance
from pruneexp.surgery.graph.rules import Live, Rule, Verbatim


def liveness(provenance: Provenance) -> Live:
    """Node -> which of its channels some layer, the output, or an operation that is not understood needs.

    Starts from nothing and adds what the rules demand until nothing changes; demands only grow with what is live.
    """
    live: Live = {}
    for node in provenance.rules:
        labels = provenance.labels.get(node)
        fixed = labels is not None and node.op != "output" and set(labels.slots.tolist()) <= provenance.frozen
        live[node] = np.full(1 if labels is None else len(labels.slots), fixed and is_made_whole(provenance, node))
    changed = True
    while changed:
        changed = False
        for node in reversed(provenance.rules):
            for source, needed in provenance.rules[node].demand(live):
                if (needed & ~live[source]).any():
                    live[source] = live[source] | needed
                    changed = True
    return live


def is_made_whole(provenance: Provenance, node: fx.Node) -> bool:
    """Whether a node's tensor has all its channels in any case: an input, or the result of an unknown operation."""
    return type(provenance.rules[node]) is Rule


def pinned(provenance: Provenance, live: Live) -> set[int]:
    """Slots whose channels must stay in their order, because something reads them that is not understood."""
    slots = set(provenance.frozen)
    for node, rule in provenance.rules.items():
        whole = is_made_whole(provenance, node) or (isinstance(rule, Verbatim) and live[node].any())
        for source in node.all_input_nodes if whole else ():
            if source in provenance.labels:
                slots.update(provenance.labels[source].slots.tolist())
    return slots


def read_everything(provenance: Provenance, live: Live) -> Live:
    """Lets every layer read all channels of its input that are live anywhere; the liveness that follows.

    This is the constrained export: a channel goes only if no layer reads any channel that is coupled to it.
    """
    while True:
        classes = provenance.classes()
        alive = set(np.concatenate([classes[node][live[node]] for node in classes]).tolist())
        for rule in provenance.rules.values():
            if isinstance(rule, Layer):
                rule.reads = rule.keep | np.isin(provenance.slots.classes(rule.slots), list(alive))
        new = liveness(provenance)
        if all(np.array_equal(new[node], live[node]) for node in new):
            return new
        live = new
