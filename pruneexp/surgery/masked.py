"""The network that an export must agree with, and how far two networks are apart."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from pruneexp.surgery.verify import relative_error


def masked_copy(network: nn.Module, masks: Mapping[str, np.ndarray]) -> nn.Module:
    """A copy in eval mode whose layers get zeros for the input channels they ignore. masks: module name -> bool."""
    network = copy.deepcopy(network).eval()
    for name, keep in masks.items():
        module = network.get_submodule(name)
        kept = torch.as_tensor(keep)
        axis = (
            -1 if isinstance(module, nn.Linear) else 1 - module.weight.dim()
        )  # from the last: with or without a batch
        module.register_forward_pre_hook(
            lambda _, args, kept=kept, axis=axis: (_zeroed(args[0], kept, axis), *args[1:])
        )
    return network


def _zeroed(tensor: Tensor, kept: Tensor, axis: int) -> Tensor:
    """The tensor with zeros in the channels that are not kept, whatever was in them."""
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return tensor.masked_fill(~kept.to(tensor.device).reshape(shape), 0)


@torch.no_grad()
def difference(left: nn.Module, right: nn.Module, example: tuple[Any, ...], *, seed: int = 0) -> float:
    """The largest difference of two networks in eval mode, in float64, against the largest output of the first.

    Both see the example and a batch of normal random numbers of its shape, drawn on the CPU from `seed`.
    """
    left, right = copy.deepcopy(left).eval().double(), copy.deepcopy(right).eval().double()
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: Tensor) -> Tensor:
        numbers = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
        return numbers if tensor.is_floating_point() else tensor

    given = tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
    return max(
        relative_error(expected, got)
        for arguments in (given, tree_map_only(Tensor, drawn, example))
        for expected, got in zip(tree_leaves(left(*arguments)), tree_leaves(right(*arguments)), strict=True)
        if isinstance(expected, Tensor)
    )
