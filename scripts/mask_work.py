"""The mask work of one training step, for `benchmark_step.py`: PDP's, and that of a first implementation of it."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarked_models import EXCLUDE, SPARSITY, network, pdp_on, seconds
from pruneexp.masks import count_to_prune
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


def mask_work(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the mask work of one step, by variant, and ratios."""
    device = torch.device(arguments.device)
    model, info = network(name, arguments.image_size, device)
    plain = {key: weight.detach().clone().requires_grad_() for key, weight in prunable(model, EXCLUDE).items()}
    gradients = {key: torch.randn_like(weight) for key, weight in plain.items()}
    fixed = {key: (weight.abs() > weight.abs().median()).to(weight) for key, weight in plain.items()}
    method = pdp_on(model, info, arguments.overrides)
    step = iter(range(1, 10**9))

    def work(weights: Weights, effective_weight: Callable[[str, Tensor], Tensor] | None) -> None:
        effective = {} if effective_weight is None else {key: effective_weight(key, w) for key, w in weights.items()}
        for key in reversed(list(effective)):
            effective.pop(key).backward(gradients[key])
        with torch.no_grad():  # thresholds move, as in training
            for key, weight in weights.items():
                weight.add_(gradients[key], alpha=1e-6)
                weight.grad = None

    def pdp() -> None:
        method.before_step(next(step))
        work(method.weights, lambda key, weight: method.soft_masks[key](weight))

    variants = {
        "nothing": lambda: work(plain, None),
        "static": lambda: work(plain, lambda key, weight: weight * fixed[key]),
        "pdp": pdp,
    }
    for key in arguments.variants:
        variants[key] = lambda of=PLAIN[key]: work(plain, lambda _, weight: plain_soft_mask(weight, of))
    figures = seconds(variants, arguments)
    base = figures.pop("nothing")
    figures = {key: value - base for key, value in figures.items()}
    return {
        **{f"{key}_ms": 1000 * value for key, value in figures.items()},
        **{f"{key}_over_static": value / figures["static"] for key, value in figures.items() if key != "static"},
        "weights": sum(weight.numel() for weight in plain.values()),
    }
