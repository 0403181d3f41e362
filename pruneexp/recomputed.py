"""Effective weights that are computed again for the backward pass of their layer, not held until then.

A layer saves the weight that it computes with for its backward pass. Where that is a product of the stored weight and a
mask, a copy of all weights would lie in memory at the moment that a training step needs most of it. While the forward
pass of a watched layer runs, hooks on what autograd saves put in the place of the product what it is computed from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Memory = Callable[[Tensor], Tensor]  # gives a tensor of the shape, type and layout of another, with any values


class Product(Protocol):
    """What computes effective weights."""

    def __call__(self, weight: Tensor, *others: Tensor, memory: Memory = torch.empty_like) -> Tensor:
        """The effective weight, the same whenever this is called with the same.

        memory: where the backward pass gets that of the weight's gradient from.
        """


class Recomputed:
    """The effective weight of one layer, for the parametrization that computes it.

    torch.compile chooses by itself what to compute again, and sees nothing of this. In mixed precision a layer saves a
    copy of the product in fewer bits, which stays: it would be there without pruning as well.
    """

    def __init__(self, layer: nn.Module) -> None:
        """layer: the module that has the weight and whose forward pass uses it."""
        self.running = False
        self.hooks: torch.autograd.graph.saved_tensors_hooks | None = None  # while they are in force
        self.recipe: _Recipe | None = None
        self.product: Tensor | None = None
        self.handles = [
            layer.register_forward_pre_hook(self._enter),
            layer.register_forward_hook(self._leave, always_call=True),
        ]

    def __call__(self, function: Product, weight: Tensor, *others: Tensor) -> Tensor:
        """function(weight, *others)."""
        if not self.running:
            return function(weight, *others)
        self.recipe = _Recipe(function, (weight, *others))
        self.product = function(weight, *others, memory=self.recipe.memory)
        if self.hooks is None:
            self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
            self.hooks.__enter__()
        return self.product

    def remove(self) -> None:
        """Leaves the layer as it was."""
        for handle in self.handles:
            handle.remove()

    def _enter(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.running = not torch.compiler.is_compiling()

    def _leave(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.running = False
        if self.hooks is not None:
            self.hooks.__exit__()
            self.hooks = self.recipe = self.product = None

    def _pack(self, tensor: Tensor) -> "_View | tuple[Tensor, int]":
        if self.product is None or _address(tensor) != _address(self.product):
            return tensor, tensor._version
        return _View(self.recipe, tensor.shape, tensor.stride(), tensor.storage_offset())


class _Recipe:
    """What a product is computed from."""

    def __init__(self, function: Product, arguments: tuple[Tensor, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.product: Tensor | None = None  # as computed last, for the backward pass of the layer

    def follow(self) -> Tensor:
        with torch.no_grad():
            product = self.function(*self.arguments)
        # With a graph of the backward pass itself (create_graph=True) the product is part of that and stays.
        self.product = None if torch.is_grad_enabled() else product
        return product

    def memory(self, tensor: Tensor) -> Tensor:
        """That of the product: its gradient is there, so whatever needed the product has had it."""
        product, self.product = self.product, None
        return product if product is not None and product.dtype == tensor.dtype else torch.empty_like(tensor)


@dataclass(frozen=True)
class _View:
    """A view of a product that is not there."""

    recipe: _Recipe
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def _unpack(packed: _View | tuple[Tensor, int]) -> Tensor:
    if isinstance(packed, _View):
        return packed.recipe.follow().as_strided(packed.shape, packed.stride, packed.offset)
    tensor, version = packed
    if tensor._version != version:  # autograd leaves this check to whoever hooks in
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} that a pruned layer needs for its backward pass was changed in "
            "place after its forward pass; use the operation that makes a new tensor"
        )
    return tensor


def _address(tensor: Tensor) -> int:
    """Where a tensor's storage begins: the same for all views of it."""
    return tensor.untyped_storage().data_ptr()
