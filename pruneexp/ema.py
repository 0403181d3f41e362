"""An exponential moving average of a model's weights, for evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class EMA:
    """shadow <- decay x shadow + (1 - decay) x weight, over parameters and float buffers (batch-norm statistics)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """decay: in [0, 1), per step."""
        self.decay = decay
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.tensors = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        self.shadow = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights of this moment."""
        weights = [tensor.detach() for tensor in self.tensors.values()]
        torch._foreach_lerp_(list(self.shadow.values()), weights, 1 - self.decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Forgets the past: the averages are the weights of this moment."""
        for name, tensor in self.tensors.items():
            self.shadow[name].copy_(tensor)

    @torch.no_grad()
    def copy_to_model_(self) -> None:
        """Overwrites the model's weights with the averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(self.shadow[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model has the averages as its weights."""
        backup = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self.copy_to_model_()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self.tensors.items():
                    tensor.copy_(backup[name])

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return self.shadow

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        for name, tensor in state.items():
            self.shadow[name].copy_(tensor)
