"""PDP: parameter-free differentiable pruning (Cho, Adya, Naik 2023, arXiv 2305.11203).

For one layer with weights w and current sparsity r, with n the number of units (single weights here):

    t     = 0.5 (smallest kept |w| + largest pruned |w|)         the magnitude of equal chance
    m(w)  = exp(w^2 / tau) / (exp(w^2 / tau) + exp(t^2 / tau)) = sigmoid((w^2 - t^2) / tau)
    w_hat = m(w) w                                               what the forward pass computes with

    d w_hat / dw = m (1 + (2 w^2 / tau) (1 - m))                 t held constant

There is nothing to learn besides w, and a pruned weight still gets gradient, so it can come back. The sparsities r_l
of the layers are fixed when pruning begins, by a global sort of |w| at the target, and are approached along a schedule.
At the end weights with m >= 0.5 stay, the others become zero.

The paper's tables and appendix could not be read; the equations agree with its abstract, its figure 2 and two
independent re-implementations. What is not certain is an option, with its status beside it in configs/method/pdp.yaml.

    prune-run method=pdp model=resnet20 dataset=cifar10 sparsity=0.9
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.masks import Masks, count_to_prune
from pruneexp.methods.base import Pruner, Setting
from pruneexp.patterns import Pattern
from pruneexp.selection import WarmBoundary, in_memory_order
from pruneexp.soft_mask import soft_masked


class SoftMask(nn.Module):
    """The parametrization w -> m(w) w of one layer.

    It is the identity until `threshold_squared` is set, and again once it is released; with a hard mask it is mask x w.
    """

    def __init__(self, pattern: Pattern, tau: float, *, relative: bool) -> None:
        super().__init__()
        self.pattern = pattern
        self.tau = tau
        self.relative = relative
        self.threshold_squared: Tensor | None = None  # (groups, 1), or () for one group of single weights
        self.temperature: Tensor | None = None  # of the same shape
        self.edges: Tensor | None = None  # (groups, 2): the units that define t, where gradient flows through it
        self.hard: Tensor | None = None
        self.boundary = WarmBoundary()

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the shape of `weight`."""
        if self.hard is not None:
            return weight * self.hard
        if self.threshold_squared is None:
            return weight
        if self.edges is None and self.pattern.single_weights:
            return soft_masked(weight, self.threshold_squared, self.temperature)
        return weight * self.pattern.expand(self.soft_units(weight), weight.shape)

    def soft_units(self, weight: Tensor) -> Tensor:
        """m of every unit, shape (groups, units), in [0, 1]. A threshold must be set."""
        units = self.pattern.units(weight.abs())
        threshold_squared = self.threshold_squared
        if self.edges is not None:
            threshold_squared = units.gather(1, self.edges).mean(dim=1, keepdim=True).square()
        return ((units.square() - threshold_squared) / self.temperature).sigmoid()

    @torch.no_grad()
    def set_threshold(self, weight: Tensor, sparsity: float, differentiable: bool) -> None:
        """Sets t between the units that a sparsity keeps and prunes; below one unit nothing is masked."""
        if self.pattern.single_weights and not differentiable:
            units = in_memory_order(weight).reshape(1, -1)  # the boundary takes the magnitudes, without copying them
        else:
            units = self.pattern.units(weight.abs())
        count = count_to_prune(sparsity, units.shape[1])
        if count == 0:
            self.threshold_squared = self.edges = None
            return
        largest_pruned, smallest_kept = self.boundary(units, count)
        self.threshold_squared = (0.5 * (largest_pruned + smallest_kept)).square()
        temperature = self.tau * self.threshold_squared if self.relative else torch.full_like(largest_pruned, self.tau)
        # Where zeros reach the threshold t = 0, and 0 / 0 would be NaN; so would w^2 / tau x 0 with the smallest tau.
        self.temperature = temperature.clamp_(min=max(1e-30, torch.finfo(temperature.dtype).tiny))
        if differentiable:
            lower = (units == largest_pruned).int().argmax(dim=1, keepdim=True)
            upper = (units == smallest_kept).int().argmax(dim=1, keepdim=True)
            self.edges = torch.cat([lower, upper], dim=1)


class PDP(Pruner):
    """Soft masks from the weights themselves."""

    soft = True

    def __init__(
        self,
        *,
        tau: float,
        tau_relative: bool,
        threshold_gradient: bool,
        start_accuracy: float | None,
        start_patience: int,
        harden_at: float,
        **pruner: Any,
    ) -> None:
        """Keeps the arguments.

        tau: temperature, in units of w^2, or with `tau_relative` of the layer's t^2. threshold_gradient: let gradient
        flow through t. start_accuracy: begin the schedule after the headline validation metric was at least this for
        `start_patience` evaluations running, instead of at the schedule's own start. harden_at: fraction of training
        after which the hard masks are fixed and the rest is fine-tuning; 1 for never.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__(**pruner)
        if tau <= 0:
            raise ValueError(f"method.tau={tau}: must be positive, a temperature in units of squared weights")
        if not 0 < harden_at <= 1:
            raise ValueError(f"method.harden_at={harden_at}: must be in (0, 1], a fraction of training; 1 for never")
        if start_patience < 1:
            raise ValueError(f"method.start_patience={start_patience}: must be at least 1 evaluation")
        self.tau = tau
        self.tau_relative = tau_relative
        self.threshold_gradient = threshold_gradient
        self.start_accuracy = start_accuracy
        self.start_patience = start_patience
        self.harden_at = harden_at
        self.final: dict[str, float] = {}  # r_l at the target
        self.current: dict[str, float] = {}  # r_l now
        self.streak = 0  # evaluations running with the headline at `start_accuracy` or above
        self.offset = 0 if start_accuracy is None else None  # steps by which the schedule is delayed

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches a SoftMask to every prunable weight."""
        super().setup(model, setting)
        self.headline = setting.task.headline
        self.soft_masks = {name: SoftMask(self.pattern, self.tau, relative=self.tau_relative) for name in self.weights}
        self.attach(model, self.soft_masks)

    def before_step(self, step: int) -> bool:
        """Fixes the budgets when pruning begins; then moves the thresholds; hardens when it is time."""
        if self.masks or self.offset is None:
            return False
        if step >= round(self.harden_at * self.timeline.total_steps):
            self._fix_budget()
            self._harden()
            return True
        if self.schedule(self.target, step - self.offset, self.timeline) == 0:
            return False
        self._fix_budget()
        for name, soft_mask in self.soft_masks.items():
            self.current[name] = self.schedule(self.final[name], step - self.offset, self.timeline)
            soft_mask.set_threshold(self.weights[name], self.current[name], self.threshold_gradient)
        return False

    def _fix_budget(self) -> None:
        if not self.final:
            magnitudes = {name: weight.detach().abs() for name, weight in self.weights.items()}
            self.final = self.layer_budget(magnitudes, self.target)

    def _hard_masks(self, budget: dict[str, float]) -> Masks:
        return {
            name: self.pattern.mask(weight.detach().abs(), budget[name])
            for name, weight in self.weights.items()
            if name in budget
        }

    def _harden(self) -> None:
        self.masks = self._hard_masks(self.final)
        self.current = dict(self.final)
        for soft_mask in self.soft_masks.values():
            soft_mask.threshold_squared = soft_mask.edges = None

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """With `start_accuracy`, starts the schedule once the headline has been high enough for long enough."""
        if self.offset is None:
            self.streak = self.streak + 1 if metrics[self.headline] >= self.start_accuracy else 0
            if self.streak >= self.start_patience:
                self.offset = step

    def sparsity(self) -> float:
        """The fraction of the prunable weights with m < 0.5 or a hard mask."""
        if self.masks or not self.current:
            return super().sparsity()
        total = sum(weight.numel() for weight in self.weights.values())
        return sum(self.current[name] * weight.numel() for name, weight in self.weights.items()) / total

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with mask x w, the masks at the sparsity of this moment."""
        if not self.masks:
            for name, mask in self._hard_masks(self.current).items():
                self.soft_masks[name].hard = mask
        try:
            yield
        finally:
            for soft_mask in self.soft_masks.values():
                soft_mask.hard = None

    def metrics(self) -> dict[str, float]:
        """The mean threshold over layers and the part of the weights whose mask is undecided (0.01 < m < 0.99)."""
        thresholds, undecided, total = [], 0, 0
        for name, soft_mask in self.soft_masks.items():
            if soft_mask.threshold_squared is None:
                continue
            mask = soft_mask.soft_units(self.weights[name].detach())
            thresholds.append(soft_mask.threshold_squared.sqrt().mean().item())
            undecided += int(((mask > 0.01) & (mask < 0.99)).sum())
            total += mask.numel()
        if not thresholds:
            return {}
        return {"pdp/threshold": sum(thresholds) / len(thresholds), "pdp/undecided": undecided / total}

    def finalize(self) -> Masks:
        """Hard masks at the target; the weights themselves, not m(w) w, stay as they are."""
        if not self.masks:
            self._fix_budget()
            self._harden()
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Masks, budgets and the state of the automatic start; thresholds follow from the weights."""
        return {
            "masks": self.masks,
            "final": self.final,
            "current": self.current,
            "streak": self.streak,
            "offset": self.offset,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.final, self.current = state["final"], state["current"]
        self.streak, self.offset = state["streak"], state["offset"]
