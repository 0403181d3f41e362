"""Masks of auxiliary tasks that are not the target's: their file in a run's folder, and what a summary says of them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pruneexp.masks import Masks, zeros

AUXILIARY_MASKS = "auxiliary_masks.safetensors"


def by_task(masks: Mapping[str, Masks]) -> dict[str, Tensor]:
    """The masks of several tasks as the file holds them: "<task>.<parameter>" -> mask."""
    return {f"{task}.{name}": mask for task, own in masks.items() for name, mask in own.items()}


def read_masks(folder: Path, task: str) -> Masks | None:
    """The masks of a task from the folder of a run; None where it has the target's."""
    from safetensors.torch import load_file

    path = folder / AUXILIARY_MASKS
    saved = load_file(path) if path.is_file() else {}
    own = {key.removeprefix(f"{task}."): mask for key, mask in saved.items() if key.startswith(f"{task}.")}
    return own or None


def compared(own: Masks | None, target: Masks, parameters: Mapping[str, Tensor]) -> dict[str, float | bool]:
    """A task's masks against the target's.

    own: None for the same masks. parameters: the prunable ones, by dense name.

    Returns `own`: whether it has masks of its own; `sparsity`: the fraction of the weights that they prune; `kept`: the
    weights that they leave; `shared`: the fraction of these that the target's leave, too.
    """
    masks = target if own is None else own
    total = sum(parameter.numel() for parameter in parameters.values())
    kept = total - zeros(masks, parameters)
    both = sum(_kept_by_both(masks.get(name), target.get(name), parameters[name]) for name in parameters)
    return {
        "own": own is not None,
        "sparsity": (total - kept) / total if total else 0.0,
        "kept": kept,
        "shared": both / kept if kept else 1.0,
    }


def _kept_by_both(one: Tensor | None, other: Tensor | None, parameter: Tensor) -> int:
    """The weights of a parameter that two masks leave. None: no mask."""
    masks = [mask.cpu() for mask in (one, other) if mask is not None]
    if not masks:
        return parameter.numel()
    left = masks[0] & masks[-1]
    return parameter.numel() // left.numel() * int(left.sum())
