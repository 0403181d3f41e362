"""Multiply-accumulate operations (MACs) of a model: dense, and after skipping those of zero weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pruneexp.tasks.base import predict

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Macs:
    """MACs of one example.

    total: of every matrix product and convolution, those of two activations (attention) among them.
    per_weight: dense parameter name -> MACs of the layers that multiply by this weight. The rest of `total` has no
    weight of its own: attention scores, their product with the values, matrix products outside `LAYERS`.
    """

    total: int
    per_weight: dict[str, int]


def macs(model: nn.Module, inputs: Any) -> Macs:
    """The MACs of one example, a MAC being two of the FLOPs that torch counts; normalisation and such count nothing.

    inputs: a batch of one example, an image tensor (1, channels, height, width) or a dict of tensors (1, length).

    For BERT with L tokens, width d, feed-forward width f, n layers and c classes this is
    n (4 L d^2 + 2 L^2 d + 2 L d f) + d^2 + d c: queries, keys, values and output; scores and their product with the
    values; feed-forward; pooler; classifier (Vaswani et al. 2017, arXiv:1706.03762, section 3).

    The model is left as it was: mode, gradients, buffers, hooks. Padding of a convolution counts, as in torch.
    """
    from torch.utils.flop_counter import FlopCounterMode

    per_weight: dict[str, int] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LAYERS)]
    hooks = [
        layer.register_forward_hook(_counting(_weight_name(name, layer, names), per_weight)) for name, layer in layers
    ]
    try:
        with _everything_visible(model), FlopCounterMode(display=False) as counter:
            predict(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return Macs(total=counter.get_total_flops() // 2, per_weight=per_weight)


def effective(macs: Macs, tensors: Mapping[str, Tensor]) -> int:
    """The MACs that remain when products with a zero weight are skipped: the total less each layer's share of zeros.

    tensors: parameter name -> mask (True = keep, shape of the parameter or broadcastable to it) or weight. Layers
    without one count in full; names without MACs (embeddings, biases) change nothing.
    """
    skipped = 0
    for name, layer_macs in macs.per_weight.items():
        if name in tensors:
            tensor = tensors[name]
            zeros = tensor.numel() - int(tensor.count_nonzero())
            # Exact: every weight is used equally often, so a layer's MACs are a multiple of its number of weights.
            skipped += layer_macs * zeros // tensor.numel()
    return macs.total - skipped


def _weight_name(prefix: str, layer: nn.Module, names: dict[int, str]) -> str:
    """The dense name of the layer's weight: that of a tied weight's first owner, as in `named_parameters`."""
    name = f"{prefix}.weight" if prefix else "weight"
    return name if parametrize.is_parametrized(layer, "weight") else names.get(id(layer.weight), name)


def _counting(name: str, per_weight: dict[str, int]) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that adds a layer's MACs to `per_weight[name]`."""

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        # weight: (outputs, inputs / groups, *kernel); one output number takes the MACs of one row.
        per_weight[name] = per_weight.get(name, 0) + output.numel() * layer.weight[0].numel()

    return count


@contextmanager
def _everything_visible(model: nn.Module) -> Iterator[None]:
    """The model in eval mode with every product visible to the counter, all restored on exit.

    Three things would hide products or add some: fused attention (zero on the CPU in some versions of torch), the
    fused encoder layer of torch (zero), and parametrizations, whose own products are training cost: they run once,
    before counting. Compiled code does not: torch runs a compiled module uncompiled while it is counted.
    """
    modes = [(module, module.training) for module in model.modules()]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    math_attention = nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH)
    model.eval()  # one example is too few for batch statistics, and counting must not change them
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), math_attention, parametrize.cached():
            for module in model.modules():
                for name in getattr(module, "parametrizations", ()):
                    getattr(module, name)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module, training in modes:
            module.training = training
