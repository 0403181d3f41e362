"""What may be pruned: weights, and the groups that a pattern makes of them."""

import logging
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from pruneexp.datasets.base import Batch
from pruneexp.groups import Group
from pruneexp.models.parts import parts
from pruneexp.patterns import Pattern

logger = logging.getLogger("pruneexp")


def groups_of(
    model: nn.Module, pattern: Pattern, exclude: Iterable[str], batches: Iterable[Batch]
) -> tuple[dict[str, Group], dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The groups that a pattern makes of the prunable weights, by name, and all parameters in them, by dense name.

    The last are parameters that lose entries with the groups' units without being counted (`SliceGroup.companions`).

    batches: of training; the first is an example of inputs, for patterns that follow a forward pass.

    Raises:
        ValueError: as `prunable`, or the pattern fits no weight.
    """
    candidates = prunable(model, exclude)
    groups = {group.name: group for group in pattern.groups(candidates, model, lambda: next(iter(batches))["inputs"])}
    names = [name for group in groups.values() for name in group.parameters]
    if not names:
        raise ValueError(
            f"pattern={type(pattern).__name__}: fits none of the {len(candidates)} prunable layers of "
            f"{type(model).__name__}; take pattern=unstructured, or another model"
        )
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for name in dict.fromkeys(names)}
    if left := sorted(candidates.keys() - weights.keys()):
        logger.info("left dense, since the pattern does not fit them: %s", ", ".join(left))
    companions = dict.fromkeys(name for group in groups.values() for name in group.companion_parameters)
    return groups, weights, {name: parameters[name] for name in companions if name not in weights}


def prunable(model: nn.Module, exclude: Iterable[str]) -> dict[str, nn.Parameter]:
    """The weights that may be pruned, by dense name: those of convolutions, linear layers and embeddings.

    exclude: names of `pruneexp.models.parts` ("first", "classifier", "depthwise", "embeddings", "head") or glob
    patterns over parameter names ("layer1.*").

    Raises:
        ValueError: an entry of `exclude` names nothing, or nothing is left to prune.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)
    weights = {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules()
        if isinstance(module, kinds)
    }
    known_parts = parts(model)
    excluded: set[str] = set()
    for entry in exclude:
        matched = known_parts.get(entry, {name for name in weights if fnmatchcase(name, entry)})
        if entry not in known_parts and not matched:
            raise ValueError(
                f"exclude={entry}: is no part ({', '.join(sorted(known_parts))}) and matches no weight; "
                f"weights are named like {next(iter(weights))}"
            )
        excluded |= matched
    left = {name: weight for name, weight in weights.items() if name not in excluded}
    if not left:
        raise ValueError(f"exclude={list(exclude)}: leaves nothing to prune in {type(model).__name__}; exclude less")
    return left
