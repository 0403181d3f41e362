"""Taking channels out of single layers, in place."""

import torch
from torch import Tensor, nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut


def cut_(layer: nn.Module, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
    """Removes output channels, and input channels, from a layer.

    outputs, inputs: bool (channels,), True = remove; None removes none. Channel-wise layers (normalisations, PReLU,
    depthwise convolutions) have `outputs` only. A grouped convolution must lose as many channels in every group.
    """
    for removed, side in ((inputs, "in"), (outputs, "out")):
        if removed is not None and bool(removed.any()):
            _CUTTERS[side][_kind(layer)](layer, torch.nonzero(~removed).flatten())


def keep_rows_(layer: nn.Module, kept: Tensor, names: tuple[str, ...] = ("weight", "bias")) -> None:
    """Keeps these indices of the first dimension of parameters or buffers. kept: int64."""
    for name in names:
        tensor = getattr(layer, name, None)
        if tensor is not None:
            _set(layer, name, tensor.detach()[kept])


def _set(layer: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(layer, name)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(layer, name, nn.Parameter(tensor, requires_grad=old.requires_grad) if is_parameter else tensor)


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.modules.conv._ConvNd):
        return "depthwise" if 1 < layer.groups == layer.in_channels == layer.out_channels else "convolution"
    kinds = {
        "linear": nn.Linear,
        "embedding": nn.Embedding,
        "norm": nn.modules.batchnorm._BatchNorm,
        "prelu": nn.PReLU,
        "shortcut": ZeroPadShortcut,
    }
    return next(kind for kind, cls in kinds.items() if isinstance(layer, cls))


def _linear_out(layer: nn.Linear, kept: Tensor) -> None:
    keep_rows_(layer, kept)
    layer.out_features = len(kept)


def _linear_in(layer: nn.Linear, kept: Tensor) -> None:
    _set(layer, "weight", layer.weight.detach()[:, kept])
    layer.in_features = len(kept)


def _embedding(layer: nn.Embedding, kept: Tensor) -> None:
    _set(layer, "weight", layer.weight.detach()[:, kept])
    layer.embedding_dim = len(kept)


def _norm(layer: nn.Module, kept: Tensor) -> None:
    keep_rows_(layer, kept, ("weight", "bias", "running_mean", "running_var"))
    layer.num_features = len(kept)


def _prelu(layer: nn.PReLU, kept: Tensor) -> None:
    keep_rows_(layer, kept)
    layer.num_parameters = len(kept)


def _depthwise(layer: nn.Module, kept: Tensor) -> None:
    keep_rows_(layer, kept)
    layer.in_channels = layer.out_channels = layer.groups = len(kept)


def _convolution_out(layer: nn.Module, kept: Tensor) -> None:
    if layer.transposed:  # weight: (inputs, outputs / groups, *kernel)
        _set(layer, "weight", _within_groups(layer.weight.detach(), kept, layer.groups, layer.out_channels))
        keep_rows_(layer, kept, ("bias",))
    else:
        keep_rows_(layer, kept)
    layer.out_channels = len(kept)


def _convolution_in(layer: nn.Module, kept: Tensor) -> None:
    if layer.transposed:
        keep_rows_(layer, kept, ("weight",))
    else:  # weight: (outputs, inputs / groups, *kernel)
        _set(layer, "weight", _within_groups(layer.weight.detach(), kept, layer.groups, layer.in_channels))
    layer.in_channels = len(kept)


def _within_groups(weight: Tensor, kept: Tensor, groups: int, channels: int) -> Tensor:
    """weight (rows, channels / groups, ...) with the kept ones of each group's own channels in dimension 1."""
    size = channels // groups
    rows = weight.reshape(groups, -1, size, *weight.shape[2:])
    parts = [rows[g][:, kept[(kept // size) == g] - g * size] for g in range(groups)]
    return torch.cat(parts)


def _shortcut_out(layer: ZeroPadShortcut, kept: Tensor) -> None:
    layer.remove_outputs(_others(kept, layer.out_channels))


def _shortcut_in(layer: ZeroPadShortcut, kept: Tensor) -> None:
    layer.remove_inputs(_others(kept, layer.in_channels))


def _others(kept: Tensor, channels: int) -> list[int]:
    return sorted(set(range(channels)) - set(kept.tolist()))


_CUTTERS = {
    "out": {
        "linear": _linear_out,
        "embedding": _embedding,
        "norm": _norm,
        "prelu": _prelu,
        "depthwise": _depthwise,
        "convolution": _convolution_out,
        "shortcut": _shortcut_out,
    },
    "in": {"linear": _linear_in, "convolution": _convolution_in, "shortcut": _shortcut_in},
}
