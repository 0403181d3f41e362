"""Removing hidden dimensions of a transformer encoder: those that are zero on the whole residual stream.

A dimension can go if it is zero in every embedding, every LayerNorm's weight and bias, and the row and bias of every
linear layer that writes to the stream: then it is zero in front of every LayerNorm and behind it. It still counts among
the H over which a LayerNorm takes mean and variance, so `NarrowLayerNorm`, which goes on counting it, takes the place
of each. CoFi instead takes the mean and variance over the open dimensions, in the masked model, too (Xia, Zhong, Chen
2022, arXiv:2204.00408, its public code), so that masking a dimension makes another function of the model.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.models.hidden_stream import HiddenStream, hidden_stream
from pruneexp.surgery.cut import cut_, keep_rows_
from pruneexp.surgery.narrow_norm import NarrowLayerNorm
from pruneexp.surgery.report import Kept
from pruneexp.surgery.verify import call, tensors


def cut_hidden_(network: nn.Module, inputs: Any, *, multiple_of: int = 1) -> list[Kept]:
    """Removes the hidden dimensions that are zero, in place; returns those that are zero in part and had to stay.

    network: in float64 and eval mode. inputs: an example. multiple_of: of which a multiple stays, zeros among them.
    At least one dimension stays. A network that hands out the stream, or reads it other than by a linear layer, still
    gets all dimensions from the last LayerNorm, zeros where they are gone.
    """
    stream = hidden_stream(network)
    if stream is None:
        return []
    zero = _zero(network, stream)
    dead = torch.stack(list(zero.values())).all(0)
    kept = _kept(zero, stream, dead)
    left = max(1, int((~dead).sum()))
    surplus = min(-(-left // multiple_of) * multiple_of, stream.width) - int((~dead).sum())
    dead[dead.nonzero().flatten()[:surplus]] = False
    if dead.any():
        _cut_(network, stream, dead, spread=not _linear_layers_read(network, stream, inputs, dead))
    return kept


def _zero(network: nn.Module, stream: HiddenStream) -> dict[str, Tensor]:
    """Parameter name -> bool (H,), where it is zero, of all that writes to a stream or scales it, weights first."""
    weights = [(name, "weight") for name in (*stream.embeddings, *stream.writers, *stream.norms)]
    biases = [(name, "bias") for name in (*stream.writers, *stream.norms)]
    zero = {}
    for name, leaf in weights + biases:
        parameter = getattr(network.get_submodule(name), leaf)
        if parameter is not None:
            rows = parameter.T if name in stream.embeddings else parameter
            zero[f"{name}.{leaf}"] = (rows == 0).reshape(stream.width, -1).all(1)
    return zero


def _kept(zero: dict[str, Tensor], stream: HiddenStream, dead: Tensor) -> list[Kept]:
    """The dimensions that are zero in all embeddings, all writers' weights or all norms' weights, and yet not dead."""
    kinds = (stream.embeddings, stream.writers, stream.norms)
    partly = torch.stack([torch.stack([zero[f"{name}.weight"] for name in kind]).all(0) for kind in kinds]).any(0)
    alive = [next(name for name in zero if not zero[name][d]) for d in (partly & ~dead).nonzero().flatten().tolist()]
    return [Kept("the hidden dimension", units, f"{name} is not zero there") for name, units in Counter(alive).items()]


@torch.enable_grad()
def _linear_layers_read(network: nn.Module, stream: HiddenStream, inputs: Any, dead: Tensor) -> bool:
    """Whether the last norm's output goes to the reader behind the layers, dimension by dimension, and nowhere else.

    On the way tokens may be taken out of it or averaged; it must not be normalised, nor returned by the network.
    """
    opened: list[Tensor] = []
    read: list[Tensor] = []

    def open_(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        opened.append(output.detach().requires_grad_())
        return opened[-1]

    def close(_module: nn.Module, args: Any) -> Any:
        read.append(args[0])
        return args[0].detach(), *args[1:]

    hooks = [network.get_submodule(stream.norms[-1]).register_forward_hook(open_)]
    hooks += [network.get_submodule(name).register_forward_pre_hook(close) for name in stream.behind]
    try:
        outputs = tensors(call(network, inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if (len(opened), len(read)) != (1, 1) or _gradient(outputs, opened[0]) is not None:
        return False
    x = read[0] * torch.arange(1.0, stream.width + 1, dtype=torch.float64)  # a plain sum of a normalised x is constant
    gradients = [_gradient([x[..., part]], opened[0]) for part in (dead, ~dead)]
    if any(gradient is None for gradient in gradients):
        return False
    apart = not gradients[0][..., ~dead].any() and not gradients[1][..., dead].any()
    return apart and not read[0][..., dead].any()


def _gradient(outputs: list[Tensor], leaf: Tensor) -> Tensor | None:
    """The gradient of the sum of all outputs at `leaf`, None if none depends on it."""
    total = sum(output.sum() for output in outputs if output.requires_grad)
    if not isinstance(total, Tensor):
        return None
    return torch.autograd.grad(total, leaf, allow_unused=True, retain_graph=True)[0]


def _cut_(network: nn.Module, stream: HiddenStream, dead: Tensor, *, spread: bool) -> None:
    """Takes dimensions out of every module of a stream, but for the readers behind the layers if it is `spread`."""
    kept = torch.nonzero(~dead).flatten()
    source = torch.where(dead, -1, (~dead).cumsum(0) - 1).tolist()
    for name in (*stream.embeddings, *stream.writers):
        cut_(network.get_submodule(name), outputs=dead)
    for name in stream.readers:
        if not (spread and name in stream.behind):
            cut_(network.get_submodule(name), inputs=dead)
    for name in stream.norms:
        norm = network.get_submodule(name)
        keep_rows_(norm, kept)
        last = spread and name == stream.norms[-1]
        narrow = NarrowLayerNorm(len(kept), stream.width, norm.eps, source if last else None)
        narrow.weight, narrow.bias = norm.weight, norm.bias
        network.set_submodule(name, narrow)
