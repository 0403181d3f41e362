"""Proof by computation that two networks are the same function: both in float64, on the same inputs."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class SurgeryError(ValueError):
    """A network that cannot be made smaller, or whose smaller version is not the same function; one line."""


@torch.no_grad()
def verify(masked: nn.Module, small: nn.Module, batches: Iterable[Any], tolerance: float = 1e-6) -> float:
    """The largest relative error between the outputs of two networks, over all batches.

    The error of a batch is max |small - masked| / max |masked|, taken over every tensor that the networks return.
    batches: inputs as the networks take them: a tensor, or a dict of named tensors. Both networks are copied to
    float64, the CPU and eval mode; in float32 the order of sums alone makes errors of about 1e-6.

    Raises:
        SurgeryError: an error above `tolerance`, an output that is not finite, or no batch to compare on.
    """
    masked, small = (copy.deepcopy(network).cpu().double().eval() for network in (masked, small))
    worst = None
    for batch in batches:
        inputs = in_double(batch)
        expected, found = tensors(call(masked, inputs)), tensors(call(small, inputs))
        if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
            raise SurgeryError("the smaller network returns tensors of other shapes than the masked one")
        errors = [relative_error(a, b) for a, b in zip(expected, found, strict=True)]
        worst = max([*errors, worst or 0.0])
    if worst is None:
        raise SurgeryError("there is no batch to compare the networks on")
    if not worst <= tolerance:
        raise SurgeryError(
            f"the smaller network differs from the masked one: relative error {worst:.2g} > {tolerance:g}"
        )
    return worst


def relative_error(expected: Tensor, found: Tensor) -> float:
    """max |found - expected| / max |expected|; the absolute error where all is zero; infinite where not finite."""
    difference = (found - expected).abs().max().item() if expected.numel() else 0.0
    scale = expected.abs().max().item() if expected.numel() else 0.0
    error = difference / scale if scale else difference
    return float("inf") if math.isnan(error) else error


def call(network: nn.Module, inputs: Any) -> Any:
    """What the network returns for a tensor or for a dict of named tensors."""
    return network(**inputs) if isinstance(inputs, dict) else network(inputs)


def in_double(inputs: Any) -> Any:
    """The same inputs on the CPU, floats in float64."""
    if isinstance(inputs, dict):
        return {key: in_double(value) for key, value in inputs.items()}
    if not isinstance(inputs, Tensor):
        return inputs
    return inputs.double().cpu() if inputs.is_floating_point() else inputs.cpu()


def tensors(value: Any) -> list[Tensor]:
    """All float tensors in what a network returns, whatever it packs them in."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    parts = list(value.values()) if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in tensors(part)] if isinstance(parts, list | tuple) else []
