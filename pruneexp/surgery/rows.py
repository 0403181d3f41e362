"""The rows and columns of a weight, by output and input channel, for linear layers and convolutions of every kind."""

import torch
from torch import Tensor, nn

from pruneexp.surgery.constants import Read


def produces(layer: nn.Module) -> bool:
    """Whether a layer makes channels of others, by a weight."""
    return isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))


def dead_rows(layer: nn.Module) -> Tensor:
    """bool (outputs,): where the rows of the weight, and the bias, are zero."""
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) == 0
        dead = grouped.flatten(3).all(3).all(1).flatten()
    else:
        dead = (weight == 0).flatten(1).all(1)
    return dead if layer.bias is None else dead & (layer.bias.detach() == 0)


def columns(layer: nn.Module) -> Tensor:
    """The weights that read each input channel, shape (inputs, weights of one input)."""
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):
        return weight.flatten(1)
    groups = getattr(layer, "groups", 1)
    rows = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return rows.transpose(1, 2).reshape(groups * weight.shape[1], -1)


def fold_(layer: nn.Module, chosen: Tensor, read: Read) -> None:
    """Adds what the chosen inputs, all constants, contribute to the bias, and zeroes their weights."""
    values = torch.where(chosen & read.known, read.values, 0.0)
    if bool(((columns(layer) != 0).any(1) & (values != 0)).any()):
        if layer.weight.dim() == 2:
            added = layer.weight @ values
        else:
            rows = layer.weight.flatten(2).sum(2).reshape(layer.groups, -1, layer.weight.shape[1])
            added = (rows @ values.reshape(layer.groups, -1, 1)).flatten()
        layer.bias = nn.Parameter(added + (0 if layer.bias is None else layer.bias))
    groups = getattr(layer, "groups", 1)
    if getattr(layer, "transposed", False):
        layer.weight[chosen] = 0
    else:
        rows = layer.weight.shape[0] // groups
        taken = chosen.reshape(groups, 1, -1).expand(groups, rows, -1).reshape(layer.weight.shape[:2])
        layer.weight[taken] = 0
