"""The mask work of one training step, for `benchmark_step.py`: PDP's, and that of a first implementation of it.

Layers are stand-ins that do nothing but save their weight for the backward pass, as real ones do.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from benchmarked_models import EXCLUDE, SPARSITY, network, pdp_on, seconds
from pruneexp.masks import count_to_prune, owner
from pruneexp.prunable import prunable

TAU = 0.02  # of the plain variants, relative to t^2, as in configs/method/pdp.yaml

Weights = dict[str, Tensor]


def by_sorting(magnitudes: Tensor, count: int) -> Tensor:
    """The threshold: the mean of the largest pruned and the smallest kept magnitude."""
    return magnitudes.sort().values[count - 1 : count + 1].mean()


def by_kthvalue(magnitudes: Tensor, count: int) -> Tensor:
    return 0.5 * (magnitudes.kthvalue(count).values + magnitudes.kthvalue(count + 1).values)


def by_topk(magnitudes: Tensor, count: int) -> Tensor:
    return magnitudes.topk(magnitudes.numel() - count + 1).values[-2:].mean()


PLAIN = {"kthvalue": by_kthvalue, "topk": by_topk, "sorting": by_sorting}


def plain_soft_mask(weight: Tensor, threshold_of: Callable[[Tensor, int], Tensor]) -> Tensor:
    """m(w) w in plain autograd."""
    t = threshold_of(weight.detach().abs().flatten(), count_to_prune(SPARSITY, weight.numel()))
    return weight * ((weight.square() - t.square()) / (TAU * t.square())).sigmoid()


class StandIn(torch.autograd.Function):
    """What a layer does with its weight: saves it, asks for it in the backward pass, and has a gradient for it."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(weight, gradient)
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: FunctionCtx, of_output: Tensor) -> tuple[Tensor, None]:
        _, gradient = ctx.saved_tensors
        return gradient, None


def mask_work(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the mask work of one step, by variant, and ratios."""
    device = torch.device(arguments.device)
    model, info = network(name, arguments.image_size, device)
    plain = {key: weight.detach().clone().requires_grad_() for key, weight in prunable(model, EXCLUDE).items()}
    gradients = {key: torch.randn_like(weight) for key, weight in plain.items()}
    fixed = {key: (weight.abs() > weight.abs().median()).to(weight) for key, weight in plain.items()}
    method = pdp_on(model, info, arguments.overrides)
    layers = {key: owner(model, key)[0] for key in plain}
    for key, layer in layers.items():
        layer.forward = lambda layer=layer, gradient=gradients[key]: StandIn.apply(layer.weight, gradient)
    step = iter(range(1, 10**9))

    def work(weights: Weights, forward: Callable[[str, Tensor], Tensor] | None) -> None:
        outputs = [] if forward is None else [forward(key, weight) for key, weight in weights.items()]
        while outputs:
            outputs.pop().backward()
        with torch.no_grad():  # thresholds move, as in training
            for key, weight in weights.items():
                weight.add_(gradients[key], alpha=1e-6)
                weight.grad = None

    def with_mask(effective_weight: Callable[[str, Tensor], Tensor]) -> None:
        work(plain, lambda key, weight: StandIn.apply(effective_weight(key, weight), gradients[key]))

    def pdp() -> None:
        method.before_step(next(step))
        work(method.weights, lambda key, _: layers[key]())

    variants = {
        "nothing": lambda: work(plain, None),
        "static": lambda: with_mask(lambda key, weight: weight * fixed[key]),
        "pdp": pdp,
    }
    for key in arguments.variants:
        variants[key] = lambda of=PLAIN[key]: with_mask(lambda _, weight: plain_soft_mask(weight, of))
    figures = seconds(variants, arguments)
    base = figures.pop("nothing")
    figures = {key: value - base for key, value in figures.items()}
    return {
        **{f"{key}_ms": 1000 * value for key, value in figures.items()},
        **{f"{key}_over_static": value / figures["static"] for key, value in figures.items() if key != "static"},
        "weights": sum(weight.numel() for weight in plain.values()),
    }
