"""Weights, zeros and bytes of a model, counted on its tensors."""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from torch import Tensor, nn


def count_nonzero(tensors: Iterable[Tensor]) -> int:
    """The number of elements that are not zero, in all tensors together."""
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


def size_bytes(state_dict: Mapping[str, Tensor]) -> int:
    """The bytes of all tensors as safetensors stores them, without its header; a tensor of two names counts once."""
    return _sum_of_distinct(state_dict, lambda _, tensor: tensor.nbytes)


def compressed_bytes(state_dict: Mapping[str, Tensor], masks: Container[str]) -> int:
    """The bytes when each pruned tensor is stored as one bit per weight and the values that are not zero.

    That is ceil(n / 8) + nonzero x bytes per value (Han et al. 2016, arXiv:1510.00149, store distances between
    non-zeros instead; a bit per weight needs no choice of a width). A tensor that this would not make smaller, or that
    `masks` does not name, counts in full.
    """
    return _sum_of_distinct(state_dict, lambda name, tensor: _packed(tensor) if name in masks else tensor.nbytes)


def sparsity_table(
    model: nn.Module | Mapping[str, Tensor], masks: Container[str], *, macs: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """One row per weight: name, shape, weights, zeros, sparsity, pruned (whether `masks` names it), macs (or None).

    model: a module, or a state dict. Rows are its float tensors of two dimensions or more, in order, and whatever
    else `masks` names: what is pruned by accident shows, and what is spared. macs: `Macs.per_weight`.
    """
    tensors = dict(model.named_parameters()) if isinstance(model, nn.Module) else model
    return [
        {
            "name": name,
            "shape": list(tensor.shape),
            "weights": tensor.numel(),
            "zeros": (zeros := tensor.numel() - int(tensor.count_nonzero())),
            "sparsity": zeros / tensor.numel() if tensor.numel() else 0.0,
            "pruned": name in masks,
            "macs": macs.get(name) if macs is not None else None,
        }
        for name, tensor in tensors.items()
        if name in masks or (tensor.is_floating_point() and tensor.dim() > 1)
    ]


def _packed(tensor: Tensor) -> int:
    bits = -(-tensor.numel() // 8)
    return bits + count_nonzero([tensor]) * tensor.element_size()


def _sum_of_distinct(state_dict: Mapping[str, Tensor], size: Callable[[str, Tensor], int]) -> int:
    """The sum of size(name, tensor), at most its dense bytes; of a tied tensor the least over its names."""
    sizes: dict[Any, int] = {}
    for name, tensor in state_dict.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.data_ptr() else name
        sizes[key] = min(size(name, tensor), sizes.get(key, tensor.nbytes))
    return sum(sizes.values())
