"""Sets of channels that can only be removed together, from torch-pruning's dependency graph.

A `Coupling` numbers these sets. For every layer it says to which set each output channel belongs, and each input
channel; a normalisation or depthwise convolution has outputs only, its inputs are the same channels.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut
from pruneexp.models.coupling import dependency_graph
from pruneexp.surgery.verify import tensors

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CHANNELWISE = (nn.modules.batchnorm._BatchNorm, nn.PReLU)

ELEMENTWISE = frozenset(
    f"{name}Backward"
    for name in (
        *("Relu", "Hardtanh", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid"),
        *("Tanh", "Softplus", "LogSigmoid", "Threshold", "Clamp", "ClampMin", "Abs", "Neg", "Pow", "Sqrt", "Exp"),
        *("Add", "Sub", "Mul", "Div", "Minimum", "Maximum", "NativeDropout", "Clone", "Alias", "ToCopy"),
        *("NativeBatchNorm", "CudnnBatchNorm", "Addmm", "Mm", "Convolution", "AvgPool2D", "AvgPool3D"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "UpsampleNearest2D", "UpsampleBilinear2D", "UpsampleBicubic2D"),
    )
)
"""Operations that treat every channel for itself, by autograd's names without the digits at their end."""

Side = tuple[nn.Module, str]  # a layer, and "out" or "in"


@dataclass
class Coupling:
    """sides: (layer, "out" or "in") -> int64 (channels,), the number of each channel's set, -1 for none. sets: how
    many there are. blocked: set -> why it must stay, for sets that no weights can free.
    """

    sides: dict[Side, Tensor] = field(default_factory=dict)
    sets: int = 0
    blocked: dict[int, str] = field(default_factory=dict)


def coupling(network: nn.Module, example: Any) -> Coupling:
    """The coupled channels of a network in eval mode whose parameters require gradients. example: as it takes it."""
    outputs: list[Any] = []
    hook = network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        graph = dependency_graph(network, example if isinstance(example, dict) else [example])
    finally:
        hook.remove()
    ends = {id(tensor.grad_fn) for tensor in tensors(outputs[-1])}
    names = {module: name for name, module in network.named_modules()}
    found = Coupling()
    for layer in [module for module in graph.module2node if isinstance(module, (*CONVOLUTIONS, nn.Linear))]:
        root = graph.get_pruner_of_module(layer)
        side = _side(found, layer, "out", root.get_out_channels(layer))
        free = torch.nonzero(side < 0).flatten().tolist()
        if free:
            number = {channel: found.sets + position for position, channel in enumerate(free)}
            found.sets += len(free)
            for item in graph.get_pruning_group(layer, root.prune_out_channels, free):
                _enter(found, item, [number[channel] for channel in item.root_idxs], ends, names)
    return found


def _enter(found: Coupling, item: Any, sets: list[int], ends: set[int], names: dict[nn.Module, str]) -> None:
    """Notes one item of a group. sets: of each of its indices."""
    node, layer = item.dep.target, item.dep.target.module
    if (not node.outputs or id(node.grad_fn) in ends) and _role(item) != "in":
        found.blocked.update(dict.fromkeys(sets, "is part of the network's output"))
    width = _width(layer, _role(item))
    if width is None:
        reason = _obstacle(node)
        if reason:
            found.blocked.update(dict.fromkeys(sets, reason))
        return
    side = _side(found, layer, _role(item), width)
    for index, number in zip(item.idxs, sets, strict=True):
        if index >= width:
            found.blocked[number] = f"is broadcast with the {width} channels of {names.get(layer, layer)}"
        elif side[index] in (-1, number):
            side[index] = number
        else:
            reason = f"is coupled in more than one way at {names.get(layer, layer)}"
            found.blocked.update({number: reason, int(side[index]): reason})


def _side(found: Coupling, layer: nn.Module, role: str, width: int) -> Tensor:
    return found.sides.setdefault((layer, role), torch.full((width,), -1))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution keeps every channel for itself."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _role(item: Any) -> str:
    """Whether an item of a group takes input channels away, or outputs; for channel-wise layers both are "out"."""
    return "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"


def _width(layer: Any, role: str) -> int | None:
    """The number of channels on a side of a layer that can lose some, None for anything else."""
    if isinstance(layer, (*CONVOLUTIONS, ZeroPadShortcut)):
        # torch-pruning takes any convolution with as many groups as outputs for a depthwise one.
        odd = getattr(layer, "groups", 1) == layer.out_channels > 1 and not is_depthwise(layer)
        return None if odd else layer.in_channels if role == "in" else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if role == "in" else layer.out_features
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return layer.num_features
    if isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        return layer.num_parameters
    return None


def _obstacle(node: Any) -> str | None:
    """Why channels cannot be removed that pass through this node; None if nothing is in the way."""
    kind, operation = node.type.name, type(node.grad_fn).__name__.rstrip("0123456789")
    if kind in ("CONCAT", "OUTPUT", "PRELU"):
        return None
    if kind == "RESHAPE":
        return None if _keeps_channels(node.grad_fn) else "passes through a change of shape that mixes channels"
    if kind == "SLICE":
        return None if 2 <= node.grad_fn._saved_dim < 2**63 else "is cut by a slice of channels"
    if kind == "ELEMENTWISE" and _is_channelwise(node, operation):
        return None
    what = operation if kind == "ELEMENTWISE" else type(node.module).__name__
    return f"passes through {what}, which may not treat each channel for itself"


def _is_channelwise(node: Any, operation: str) -> bool:
    if operation in ("ConstantPadNdBackward", "IndexBackward"):
        return all(isinstance(output.module, ZeroPadShortcut) for output in node.outputs)
    if operation == "TBackward":
        return not node.inputs  # the transposed weight of a linear layer
    if operation == "MeanBackward":
        size = len(node.grad_fn._saved_self_sym_sizes) if hasattr(node.grad_fn, "_saved_self_sym_sizes") else 0
        dims = getattr(node.grad_fn, "_saved_dim", ())
        dims = {(d if d < 2**63 else d - 2**64) % size for d in dims} if size else set()
        return bool(dims) and min(dims) >= 2
    return operation in ELEMENTWISE or (operation.startswith("Squeeze") and _keeps_channels(node.grad_fn))


def _keeps_channels(grad_fn: Any) -> bool:
    """Whether a change of shape leaves channels apart: (N, C, ...) to (N, C * ...), or (..., C) to (..., C)."""
    before = tuple(getattr(grad_fn, "_saved_self_sym_sizes", ()))
    after = tuple(grad_fn._input_metadata[0].shape)
    flattened = len(after) == 2 and before[:1] == after[:1]
    same_channels = len(before) in (2, 4, 5) and len(after) in (2, 4, 5) and before[:2] == after[:2]
    same_last = len(before) <= 3 and len(after) <= 3 and before[-1:] == after[-1:]
    return bool(before) and (flattened or same_channels or same_last)
