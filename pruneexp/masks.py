"""Masks, and what can be done with them.

A mask is a bool tensor, True = keep, of the shape of its parameter or broadcastable to it. `Masks` maps the dense name
of a parameter ("layer1.0.conv1.weight") to its mask; a parameter without an entry is not pruned.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Masks = dict[str, Tensor]


def count_to_prune(sparsity: float, units: int) -> int:
    """The number of units to prune, round(sparsity x units).

    `int` would truncate: int((1 - 0.9) * 10) == 0, and a layer that should keep one weight would lose it.
    """
    return round(sparsity * units)


def dense_name(name: str) -> str:
    """The name that a parameter has in the plain model: "a.parametrizations.weight.original" -> "a.weight"."""
    return name.replace("parametrizations.", "").removesuffix(".original") if "parametrizations." in name else name


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter is an attribute of, by dense name, and the attribute's name."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def stored_parameter(model: nn.Module, name: str) -> nn.Parameter:
    """The parameter that the optimizer sees under a dense name: the original one where it is parametrized."""
    module, leaf = owner(model, name)
    if parametrize.is_parametrized(module, leaf):
        return module.parametrizations[leaf].original
    return getattr(module, leaf)


@torch.no_grad()
def apply_masks_(parameters: Mapping[str, Tensor], masks: Masks) -> None:
    """Zeroes the pruned weights in place. parameters: dense name -> tensor."""
    for name, mask in masks.items():
        parameters[name].mul_(mask)


@torch.no_grad()
def mask_gradients_(parameters: Mapping[str, Tensor], masks: Masks) -> None:
    """Zeroes the gradients of pruned weights in place, so that no optimizer moves them."""
    for name, mask in masks.items():
        gradient = parameters[name].grad
        if gradient is not None:
            gradient.mul_(mask)


@torch.no_grad()
def mask_optimizer_state_(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], masks: Masks) -> None:
    """Zeroes momentum and the like at pruned weights in place; otherwise it would revive them after the masking."""
    for name, mask in masks.items():
        parameter = parameters[name]
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.mul_(mask)


def zeros(masks: Masks, parameters: Mapping[str, Tensor]) -> int:
    """The number of weights in `parameters` that the masks prune, broadcast masks counted in full."""
    pruned = ((parameters[name].numel() // mask.numel(), ~mask) for name, mask in masks.items() if name in parameters)
    return sum(copies * int(mask.sum()) for copies, mask in pruned)


def sparsity(masks: Masks, parameters: Mapping[str, Tensor]) -> float:
    """The fraction of the weights in `parameters` that the masks prune, in [0, 1]."""
    total = sum(parameter.numel() for parameter in parameters.values())
    return zeros(masks, parameters) / total if total else 0.0


def fingerprint(masks: Masks) -> str:
    """A hash of all masks, equal on two processes exactly if their masks are."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(name.encode())
        digest.update(masks[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
