"""A pruned network as a smaller plain one that computes the same function.

Masks leave a network as large and as slow as it was. Where whole channels, heads or feed-forward units are zero,
`shrink` takes them out. What can go is derived from zeros in the weights, never from a method's intent, and every
result is compared with the masked network before it is returned.

    small = shrink(network, masks, example)
"""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pruneexp.masks import Masks
from pruneexp.models.errors import first_line
from pruneexp.surgery.channels import cut_channels_
from pruneexp.surgery.encoders import cut_encoders_, has_encoder_layers
from pruneexp.surgery.hidden import cut_hidden_
from pruneexp.surgery.report import Kept
from pruneexp.surgery.verify import SurgeryError, in_double, verify

logger = logging.getLogger("pruneexp")


@dataclass(frozen=True)
class Shrunk:
    """network: the smaller one. kept: units that are zero and had to stay. error: as `verify` returns it."""

    network: nn.Module
    kept: list[Kept]
    error: float


def shrink(network: nn.Module, masks: Masks, example: Any, *, multiple_of: int = 1) -> nn.Module:
    """A new, smaller network: that of `shrink_and_report`, with what had to stay in the log."""
    shrunk = shrink_and_report(network, masks, example, multiple_of=multiple_of)
    for kept in shrunk.kept:
        logger.info("kept: %d zero units of %s: %s", kept.units, kept.layer, kept.why)
    return shrunk.network


def shrink_and_report(network: nn.Module, masks: Masks, example: Any, *, multiple_of: int = 1) -> Shrunk:
    """A new network without the channels, heads, units and hidden dimensions that are zero, and an account of it.

    network: plain, its weights zero where `masks` (parameter name -> bool, True = keep, broadcastable) are False; it
    is left as it is. example: a batch of one or more inputs: a tensor, or a dict of named tensors. multiple_of: layers
    that lose channels, and the hidden dimension, keep a multiple of so many, zeros among them, where the kernels of a
    machine are faster so; heads and feed-forward units are not rounded. The new network has the dtype, device, mode and
    `requires_grad` of the old.

    Raises:
        SurgeryError: a weight is not zero where its mask is False, the network is parametrized, torch-pruning cannot
            follow it, or the smaller network differs from it.
    """
    if multiple_of < 1:
        raise SurgeryError(f"multiple_of={multiple_of}: must be at least 1")
    check_zeros(network, masks)
    small = copy.deepcopy(network).cpu().double().eval().requires_grad_(True)
    inputs = in_double(example)
    if has_encoder_layers(small):
        # A unit that reads only from dimensions that are gone is a constant, which cut_encoders_ finds.
        kept = cut_hidden_(small, inputs, multiple_of=multiple_of) + cut_encoders_(small)
    else:
        kept = cut_channels_(small, inputs, multiple_of=multiple_of)
    _restore_(small, network)
    return Shrunk(small, kept, _proof(network, small, [inputs, *_other_inputs(inputs)]))


def _proof(network: nn.Module, small: nn.Module, batches: list[Any]) -> float:
    """The error that `verify` finds. A network that does not even run is an error of the same kind."""
    try:
        return verify(network, small, batches)
    except SurgeryError:
        raise
    except Exception as error:  # of the network's own code, whose channels were not coupled as the graph has it
        name, line = type(network).__name__, first_line(error)
        raise SurgeryError(f"{name} cannot be made smaller: torch-pruning misreads how it is built ({line})") from error


def check_zeros(network: nn.Module, masks: Masks) -> None:
    """Raises SurgeryError unless the network is plain and its weights are zero where their masks are False."""
    parametrized = [name for name, module in network.named_modules() if parametrize.is_parametrized(module)]
    if parametrized:
        raise SurgeryError(f"{parametrized[0]} is parametrized: finalise the method, which makes its weights plain")
    parameters = dict(network.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise SurgeryError(f"masks: the network has no parameter {name}; take the masks of this network")
        try:
            pruned = ~mask.cpu().expand(parameters[name].shape)
        except RuntimeError:
            shapes = f"{tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
            raise SurgeryError(f"masks: {name} has shape {shapes}; take the masks of this network") from None
        alive = int(parameters[name].detach().cpu()[pruned].count_nonzero())
        if alive:
            raise SurgeryError(f"masks: {name} is not zero at {alive} weights that its mask prunes; apply the masks")


def _restore_(small: nn.Module, network: nn.Module) -> None:
    """Gives the new network the old one's dtypes, devices, modes and gradients."""
    old = {name: tensor for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    default = next(network.parameters())
    for name, tensor in [*small.named_parameters(), *small.named_buffers()]:
        like = old.get(name, default)  # a bias that took over constants is new
        dtype = like.dtype if tensor.is_floating_point() else tensor.dtype
        tensor.data = tensor.data.to(device=like.device, dtype=dtype)
        if isinstance(tensor, nn.Parameter):
            tensor.requires_grad_(like.requires_grad)
    modes = {name: module.training for name, module in network.named_modules()}
    for name, module in small.named_modules():
        module.training = modes.get(name, network.training)


def _other_inputs(inputs: Any) -> list[Any]:
    """Inputs of the same shape with noise in place of an example that may be all zeros; none for tokens."""
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        return []
    return [torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)]
