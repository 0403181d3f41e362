"""PQ-trees and the choice of reads against all permutations; whole exports against random masks."""

import copy
import itertools

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruneexp.surgery.graph.consecutive import best_order
from pruneexp.surgery.graph.pq_tree import leaves, node, reduce
from pruneexp.surgery.upscale import MODES, export


def together(order, wanted):
    places = sorted(order.index(element) for element in wanted)
    return not places or places[-1] - places[0] == len(places) - 1


@st.composite
def families(draw):
    """A number of elements, and some of their subsets."""
    size = draw(st.integers(2, 6))
    subsets = st.frozensets(st.integers(0, size - 1), min_size=1)
    return size, draw(st.lists(subsets, min_size=1, max_size=5))


@given(families())
@settings(max_examples=200, deadline=None)
def test_a_pq_tree_finds_an_order_exactly_if_there_is_one(family):
    size, sets = family
    possible = any(all(together(order, one) for one in sets) for order in itertools.permutations(range(size)))
    tree = node(range(size), fixed=False)
    for one in sets:
        tree = reduce(tree, one) if tree is not None else None
    assert (tree is not None) == possible
    if possible:
        order = list(leaves(tree))
        assert sorted(order) == list(range(size)) and all(together(order, one) for one in sets)


@given(families(), st.lists(st.sampled_from([1.0, 1.5, 0.25]), min_size=5, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_best_order_has_the_greatest_weight_of_all_permutations(family, weights):
    size, sets = family
    weights = weights[: len(sets)]
    order, chosen = best_order(range(size), [], [([one], w) for one, w in zip(sets, weights, strict=True)])
    best = max(
        sum(w for one, w in zip(sets, weights, strict=True) if together(permutation, one))
        for permutation in itertools.permutations(range(size))
    )
    assert sum(weights[index] for index in chosen) == best
    assert all(together(order, sets[index]) for index in chosen)


def test_groups_of_sets_count_only_together():
    circle = [frozenset({0, 1}), frozenset({1, 2}), frozenset({0, 2})]
    _, chosen = best_order(range(3), [], [(circle, 5.0), ([frozenset({0, 2})], 1.0)])
    assert chosen == {1}


def test_required_sets_come_before_wanted_ones():
    order, chosen = best_order(
        range(4), [frozenset({0, 1})], [([frozenset({0, 2, 3})], 1.0), ([frozenset({0, 2})], 1.0)]
    )
    assert together(order, {0, 1}) and len(chosen) == 2
    order, chosen = best_order(range(3), [frozenset({0, 1}), frozenset({1, 2})], [([frozenset({0, 2})], 9.0)])
    assert order[1] == 1 and chosen == set()


def test_a_search_that_runs_out_of_tries_still_returns_the_greedy_choice():
    sets = [frozenset({i, (i + 1) % 12}) for i in range(12)]
    order, chosen = best_order(range(12), [], [([one], 1.0) for one in sets], tries=12)
    assert len(chosen) == 11 and all(together(order, sets[index]) for index in chosen)


class Mixed(nn.Module):
    """A residual sum, a gate, a concatenation, a depthwise and a grouped layer, a shuffle, a flattened map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.norm = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(14, 8, 3, padding=1, groups=2)
        self.c, self.d = nn.Conv2d(4, 6, 1), nn.Conv2d(8, 6, 1)
        self.linear = nn.Linear(14 * 4, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.norm(self.a(x))
        y = self.depthwise(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        z = self.grouped(torch.cat([y, self.b(x)], 1))
        z = z.reshape(z.size(0), 2, 4, z.size(2), z.size(3)).transpose(1, 2).flatten(1, 2)
        left, right = z.chunk(2, 1)
        z = torch.cat([F.silu(right), self.c(left), F.max_pool2d(left, 1)], 1) + torch.cat([right, self.d(z), left], 1)
        return self.linear(F.adaptive_avg_pool2d(z, 2).flatten(1))


LAYERS = {name: layer for name, layer in Mixed().named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
WIDTHS = {name: layer.in_features if name == "linear" else layer.in_channels for name, layer in LAYERS.items()}


@given(st.sampled_from(MODES), st.integers(0, 2**20), st.sampled_from([0.1, 0.5, 0.8]))
@settings(max_examples=40, deadline=None)
def test_any_masks_give_the_outputs_of_the_masked_network(lively, zeroed, mode, seed, ratio):
    torch.manual_seed(seed)
    network = lively(Mixed(), seed)
    keep = {name: torch.rand(width) > ratio for name, width in WIDTHS.items()}
    example = torch.randn(2, 3, 4, 4)
    module, report = export(network, example, keep, mode=mode)
    other = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    expected = zeroed(network, keep)(other)
    torch.testing.assert_close(copy.deepcopy(module).double()(other), expected, rtol=1e-9, atol=1e-11)
    assert report.parameters <= report.parameters_dense and report.macs <= report.macs_dense
    if mode == "constrained":  # the shuffle alone takes layers' channels apart
        assert report.layers.copy <= 1
