"""STR: soft threshold reparameterization (Kusupati et al. 2020, arXiv 2002.03231).

For layer l with weights w_l and a learned number s_l:

    w_hat = sign(w) ReLU(|w| - g(s_l)),   g(s) = 1 / (1 + exp(-s))           what the forward pass computes with

    d w_hat / d w = 1[|w| > g(s_l)]
    dL / d s_l    = -g'(s_l) sum over the layer of sign(w) 1[|w| > g(s_l)] dL / d w_hat,   g' = g (1 - g)

Nothing says how sparse the model is to become. s starts far below zero, where the threshold g(s) is next to nothing;
weight decay pulls it up towards g(0) = 0.5, and the loss holds it back. So the sparsity is steered by where s starts
and by the weight decay (and learning rate) of s. The final weights are w_hat: what is left has shrunk by the threshold.

    prune-run method=str model=resnet20 dataset=cifar10
    prune-run experiment=imagenet_str_resnet50 dataset.root=<ImageNet>       90.23 % and 74.31 % in the paper
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.masks import Masks
from pruneexp.methods.base import Method, Setting
from pruneexp.prunable import prunable

logger = logging.getLogger("pruneexp")


class SoftThreshold(nn.Module):
    """The parametrization w -> sign(w) ReLU(|w| - g(s)) of one layer."""

    def __init__(self, s: nn.Parameter) -> None:
        super().__init__()
        self.s = s  # shape ()

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the shape of `weight`."""
        return weight.sign() * (weight.abs() - self.s.sigmoid()).relu()


class STR(Method):
    """Learns one threshold per layer, and with it how sparse each layer becomes."""

    def __init__(
        self, *, exclude: list[str], s_init: float, per_layer: bool, learning_rate: float, weight_decay: float
    ) -> None:
        """Keeps the arguments.

        exclude: names of `pruneexp.models.parts` or glob patterns over parameter names. s_init: where every s starts;
        the threshold is its sigmoid. per_layer: a threshold for each layer, or one for all. learning_rate: of s, at the
        peak of the optimizer's schedule. weight_decay: of s.

        Raises:
            ValueError: a rate is not positive or a decay is negative.
        """
        super().__init__()
        if learning_rate <= 0:
            raise ValueError(f"method.learning_rate={learning_rate}: must be positive")
        if weight_decay < 0:
            raise ValueError(f"method.weight_decay={weight_decay}: must not be negative")
        self.exclude = exclude
        self.s_init = s_init
        self.per_layer = per_layer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches a SoftThreshold to every prunable weight."""
        self.weights = prunable(model, self.exclude)
        device = next(iter(self.weights.values())).device
        count = len(self.weights) if self.per_layer else 1
        self.thresholds = [nn.Parameter(torch.tensor(float(self.s_init), device=device)) for _ in range(count)]
        every = self.thresholds if self.per_layer else self.thresholds * len(self.weights)
        self.soft_thresholds = {name: SoftThreshold(s) for name, s in zip(self.weights, every, strict=True)}
        self.attach(model, self.soft_thresholds)

    def param_groups(self) -> list[dict[str, Any]]:
        """One group with every s."""
        return [{"params": self.thresholds, "lr": self.learning_rate, "weight_decay": self.weight_decay}]

    @torch.no_grad()
    def _effective(self) -> dict[str, Tensor]:
        return {name: soft(self.weights[name]) for name, soft in self.soft_thresholds.items()}

    def sparsity(self) -> float:
        """The fraction of the prunable weights at or below their threshold."""
        total = sum(weight.numel() for weight in self.weights.values())
        return 1 - sum(int(weight.count_nonzero()) for weight in self._effective().values()) / total

    def metrics(self) -> dict[str, float]:
        """The mean threshold over layers."""
        return {"str/threshold": torch.stack([s.detach().sigmoid() for s in self.thresholds]).mean().item()}

    @torch.no_grad()
    def finalize(self) -> Masks:
        """Makes the soft-thresholded weights the plain ones; the masks are where they are not zero."""
        effective = self._effective()
        self.masks = {name: weight != 0 for name, weight in effective.items()}
        for name, weight in effective.items():
            self.weights[name].copy_(weight)
        self.detach()
        if empty := [name for name, mask in self.masks.items() if not mask.any()]:
            logger.warning("no weight is left in %s: lower method.weight_decay or method.s_init", ", ".join(empty))
        if all(mask.all() for mask in self.masks.values()):
            logger.warning("nothing was pruned: raise method.s_init, method.weight_decay or method.learning_rate")
        return self.masks
