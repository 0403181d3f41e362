"""PQ-trees: all orders of some elements in which given sets are consecutive.

Booth and Lueker 1976, "Testing for the consecutive ones property, interval graphs, and graph planarity using PQ-tree
algorithms", J. Computer and System Sciences 13. A P node's children may stand in any order, a Q node's only as they are
or reversed. This is a short recursive form of the reduction; it visits the whole tree for every set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Leaf = int


@dataclass(frozen=True)
class Branch:
    """An inner node of a PQ-tree. fixed: a Q node."""

    children: tuple["Tree", ...]
    fixed: bool


Tree = Leaf | Branch


def node(children: Iterable[Tree], *, fixed: bool) -> Tree:
    """A node over the children; a single child stands for itself."""
    children = tuple(children)
    return children[0] if len(children) == 1 else Branch(children, fixed)


def leaves(tree: Tree) -> Iterable[int]:
    """The leaves from left to right: one of the orders that the tree allows."""
    if not isinstance(tree, Branch):
        yield tree
    else:
        for child in tree.children:
            yield from leaves(child)


def reduce(tree: Tree, wanted: frozenset[int]) -> Tree | None:
    """The tree of those orders in which, in addition, `wanted` is consecutive; None if there is none."""
    counts: dict[int, tuple[int, int]] = {}
    _count(tree, wanted, counts)
    return _within(tree, counts)


def _count(tree: Tree, wanted: frozenset[int], counts: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many leaves of each subtree are wanted, and how many it has, by identity of the subtree."""
    if isinstance(tree, Branch):
        pairs = [_count(child, wanted, counts) for child in tree.children]
        result = (sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
    else:
        result = (int(tree in wanted), 1)
    counts[id(tree) if isinstance(tree, Branch) else ~tree] = result
    return result


def _kind(tree: Tree, counts: dict[int, tuple[int, int]]) -> int:
    """0 if nothing in the subtree is wanted, 2 if all is, 1 otherwise."""
    some, every = counts[id(tree) if isinstance(tree, Branch) else ~tree]
    return 0 if some == 0 else 2 if some == every else 1


def _within(tree: Tree, counts: dict[int, tuple[int, int]]) -> Tree | None:
    """The subtree, which holds all wanted leaves, with these consecutive."""
    if not isinstance(tree, Branch) or _kind(tree, counts) == 2:
        return tree
    kinds = [_kind(child, counts) for child in tree.children]
    touched = [index for index, kind in enumerate(kinds) if kind]
    if len(touched) == 1:
        inner = _within(tree.children[touched[0]], counts)
        return None if inner is None else Branch(_replaced(tree.children, touched[0], [inner]), tree.fixed)
    if tree.fixed:
        middle = _spread(tree.children[touched[0] : touched[-1] + 1], counts)
        if middle is None:
            return None
        return Branch((*tree.children[: touched[0]], *middle, *tree.children[touched[-1] + 1 :]), True)
    partial = [child for child, kind in zip(tree.children, kinds, strict=True) if kind == 1]
    full = [child for child, kind in zip(tree.children, kinds, strict=True) if kind == 2]
    block = _spread([*partial[:1], *([node(full, fixed=False)] if full else []), *partial[1:]], counts, grown=full)
    if block is None:
        return None
    empty = [child for child, kind in zip(tree.children, kinds, strict=True) if kind == 0]
    return node([*empty, node(block, fixed=True)], fixed=False)


def _replaced(children: tuple[Tree, ...], index: int, new: list[Tree]) -> tuple[Tree, ...]:
    return (*children[:index], *new, *children[index + 1 :])


def _spread(
    children: Sequence[Tree], counts: dict[int, tuple[int, int]], grown: Sequence[Tree] = ()
) -> list[Tree] | None:
    """Neighbours of which only the first and the last may be partly wanted, opened so that all wanted ones meet."""
    result: list[Tree] = []
    for index, child in enumerate(children):
        known = counts.get(id(child) if isinstance(child, Branch) else ~child)
        kind = 2 if known is None and grown else _kind(child, counts)
        if kind == 2:
            result.append(child)
        elif kind == 1 and index in (0, len(children) - 1):
            opened = _opened(child, counts)
            if opened is None:
                return None
            result += opened if index == 0 else opened[::-1]
        else:
            return None
    return result


def _opened(tree: Branch, counts: dict[int, tuple[int, int]]) -> list[Tree] | None:
    """A partly wanted subtree as a list of subtrees: first those with no wanted leaf, then those with no other."""
    kinds = [_kind(child, counts) for child in tree.children]
    children = list(tree.children)
    if tree.fixed and (kinds[0] == 2 or kinds[-1] == 0 or kinds[0] > kinds[-1]):
        kinds, children = kinds[::-1], children[::-1]
    if not tree.fixed:
        kinds, children = map(
            list, zip(*sorted(zip(kinds, children, strict=True), key=lambda pair: pair[0]), strict=True)
        )
    if kinds.count(1) > 1 or kinds != sorted(kinds):
        return None
    empty, full = children[: kinds.count(0)], children[len(kinds) - kinds.count(2) :]
    middle = _opened(children[kinds.index(1)], counts) if 1 in kinds else []
    if middle is None:
        return None
    if not tree.fixed:
        empty, full = ([node(part, fixed=False)] if part else [] for part in (empty, full))
    return [*empty, *middle, *full]
