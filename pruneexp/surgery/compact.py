"""A masked encoder at nearly the cost of the smaller one, while it trains on.

Linear layers compute with the rows and columns that belong to heads and FFN units that masks leave. The parameters stay
as they are, with their names, shapes and zeros, so that optimizer, masks and checkpoints know nothing of it. What is
left out contributes zero, and has a gradient of zero instead of one that the masks would zero.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.masks import Masks
from pruneexp.models.encoder_layers import encoder_layers


def compact_(network: nn.Module, masks: Masks) -> list[nn.Linear]:
    """Lets the encoder layers of a network compute with what masks leave. The modules that `expand_` gives back.

    masks: by dense name, in force. A sub-layer that is masked altogether computes with one head or unit of zeros.
    """
    changed = []
    for layer in encoder_layers(network):
        for inputs, output, size in (
            ((layer.query, layer.key, layer.value), layer.attention_output, layer.head_size),
            ((layer.ffn_input,), layer.ffn_output, 1),
        ):
            mask = masks.get(f"{output}.weight")
            if mask is None:
                continue
            projection = network.get_submodule(output)
            used = mask.expand(projection.out_features, projection.in_features).any(dim=0).view(-1, size)
            units = used.any(dim=1)
            units[0] |= not units.any()
            if units.all():
                continue
            kept = units.repeat_interleave(size).nonzero().squeeze(1)
            for path in inputs:
                module = network.get_submodule(path)
                module.forward = partial(_rows, module, kept)
                changed.append(module)
            projection.forward = partial(_columns, projection, kept)
            changed.append(projection)
    return changed


def expand_(modules: list[nn.Linear]) -> None:
    """Lets modules that `compact_` changed compute with all of their weights again."""
    for module in modules:
        del module.forward
    modules.clear()


def _rows(module: nn.Linear, kept: Tensor, x: Tensor) -> Tensor:
    """x (..., in) -> the outputs `kept` (..., count)."""
    return F.linear(x, module.weight[kept], None if module.bias is None else module.bias[kept])


def _columns(module: nn.Linear, kept: Tensor, x: Tensor) -> Tensor:
    """The inputs `kept` (..., count) -> (..., out)."""
    return F.linear(x, module.weight[:, kept], module.bias)
