"""Weights, zeros, bytes and MACs, counted on a run's files anew.

Nothing here is shared with `pruneexp.measure`, which counted them when the run was finished: parameters are told by
the names in the file and not by the model, bytes are added up here, and MACs are read off the arguments of torch's
functions as the model calls them, where `pruneexp.measure` asks torch's FLOP counter.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids", "token_type_ids")
"""What state dicts hold besides parameters, by the last part of the name."""


def counts(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, float]:
    """What summary.json says of weights: key -> number. weights, masks: the content of the run's two files."""
    parameters = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[2] not in BUFFERS}
    total = sum(math.prod(tensor.shape) for tensor in parameters.values())
    nonzero = sum(int((tensor != 0).sum()) for tensor in parameters.values())
    prunable = sum(math.prod(weights[name].shape) for name in masks)
    zeros = sum(int((weights[name] == 0).sum()) for name in masks)
    return {
        "params.total": total,
        "params.nonzero": nonzero,
        "params.prunable": prunable,
        "sparsity.total": 1 - nonzero / total,
        "sparsity.prunable": zeros / prunable if prunable else 0.0,
        "size_bytes.dense": sum(_bytes(tensor) for tensor in weights.values()),
        "size_bytes.compressed": sum(
            min(_bytes(tensor), math.ceil(tensor.numel() / 8) + int((tensor != 0).sum()) * tensor.element_size())
            if name in masks
            else _bytes(tensor)
            for name, tensor in weights.items()
        ),
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def broken_masks(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[str]:
    """The names of the weights that are not zero somewhere where their mask prunes."""
    return [name for name, mask in masks.items() if bool((weights[name] * ~mask != 0).any())]


@torch.no_grad()
def macs(network: nn.Module, inputs: Any) -> dict[str, int]:
    """MACs of one example, all and without those of zero weights. inputs: a batch of one example."""
    with _Counting() as counting:
        network.eval()(**inputs) if isinstance(inputs, dict) else network.eval()(inputs)
    return {"macs.dense": counting.dense, "macs.effective": counting.effective}


class _Counting(TorchFunctionMode):
    """Adds up the MACs of the matrix products and convolutions that run below it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = self.effective = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        if name in ("linear", "conv1d", "conv2d", "conv3d"):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            uses = outputs.numel() // len(weight)  # how often each weight is multiplied
            self._add(uses * weight.numel(), uses * int((weight != 0).sum()))
        elif name == "scaled_dot_product_attention":
            query, key, value = (args + tuple(kwargs.values()))[:3]
            scores = query.numel() // query.shape[-1] * key.shape[-2]  # one for each pair of positions
            self._add(scores * (query.shape[-1] + value.shape[-1]))
        elif name in ("matmul", "bmm", "__matmul__", "mm"):
            self._add(outputs.numel() * args[0].shape[-1])
        return outputs

    def _add(self, dense: int, effective: int | None = None) -> None:
        self.dense += dense
        self.effective += dense if effective is None else effective
