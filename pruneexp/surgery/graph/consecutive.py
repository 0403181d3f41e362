"""An order of elements in which as many given sets as possible are consecutive."""

from collections.abc import Sequence

from pruneexp.surgery.graph.pq_tree import Tree, leaves, node, reduce

Group = Sequence[frozenset[int]]
"""Sets that are of use only all together."""


def best_order(
    elements: Sequence[int], required: Sequence[frozenset[int]], wanted: Sequence[tuple[Group, float]], tries: int = 400
) -> tuple[list[int], set[int]]:
    """An order of the elements, and the indices of the groups in `wanted` whose sets are all consecutive in it.

    required: sets that come first, each where it is possible beside those before it. wanted: groups with their
    weights; the sum of weights is maximised by branch and bound, the heavier group first. The first branch is the
    greedy choice; the search is exact unless it takes more than `tries` reductions.
    """
    sought = sorted(range(len(wanted)), key=lambda index: -wanted[index][1])
    tree, groups, _ = _prepared(elements, required, [wanted[index][0] for index in sought])
    search = _Search(groups, [wanted[index][1] for index in sought], tries)
    search.run(tree, 0, (), 0.0)
    chosen = [sought[index] for index in search.chosen]
    # Once more with these groups alone: what only the others tell apart then stays in the order of the elements.
    tree, groups, members = _prepared(elements, required, [wanted[index][0] for index in chosen])
    for one in (one for group in groups for one in group):
        tree = reduce(tree, one)
    return [element for column in leaves(tree) for element in members[column]], set(chosen)


def _prepared(
    elements: Sequence[int], required: Sequence[frozenset[int]], groups: Sequence[Group]
) -> tuple[Tree, list[list[frozenset[int]]], list[list[int]]]:
    """A tree that has the required sets, over columns: elements that no set tells apart. Groups, as sets of columns.

    The third value holds the elements of each column.
    """
    columns: dict[tuple[bool, ...], list[int]] = {}
    sets = [*required, *(one for group in groups for one in group)]
    for element in elements:
        columns.setdefault(tuple(element in one for one in sets), []).append(element)
    members = list(columns.values())
    column = {element: index for index, block in enumerate(members) for element in block}
    tree = node(range(len(members)), fixed=False)
    for one in required:
        tree = reduce(tree, frozenset(column[element] for element in one)) or tree
    return tree, [[frozenset(column[element] for element in one) for one in group] for group in groups], members


class _Search:
    """Branch and bound over which groups to satisfy."""

    def __init__(self, groups: list[list[frozenset[int]]], weights: list[float], tries: int) -> None:
        self.groups, self.weights, self.tries = groups, weights, tries
        self.rest = [sum(weights[index:]) for index in range(len(weights) + 1)]
        self.best, self.chosen, self.tree = -1.0, (), None

    def run(self, tree: Tree, index: int, chosen: tuple[int, ...], weight: float) -> None:
        """Tries all choices among the groups from `index` on."""
        if weight > self.best:
            self.best, self.chosen, self.tree = weight, chosen, tree
        if index == len(self.groups) or weight + self.rest[index] <= self.best:
            return
        if self.tries > 0 or not self.best:
            self.tries -= 1
            new = tree
            for one in self.groups[index]:
                new = None if new is None else reduce(new, one)
            if new is not None:
                self.run(new, index + 1, (*chosen, index), weight + self.weights[index])
            self.run(tree, index + 1, chosen, weight)
