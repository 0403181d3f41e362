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

from pruneexp.gates import Gates
from pruneexp.groups import SliceGroup
from pruneexp.masks import Masks, count_to_prune, owner
from pruneexp.methods.base import Pruner, Setting
from pruneexp.patterns import TensorGroup, TensorPattern
from pruneexp.recomputed import Recomputed
from pruneexp.selection import WarmBoundary, in_memory_order
from pruneexp.soft_mask import soft_masked


class Threshold:
    """t and tau of one group, and the soft mask that they make of its scores; no mask until `set`."""

    def __init__(self, *, relative: bool, differentiable: bool) -> None:
        """relative: measure tau in units of t^2. differentiable: let gradient flow through t."""
        self.relative = relative
        self.differentiable = differentiable
        self.squared: Tensor | None = None  # t^2, (rows, 1)
        self.temperature: Tensor | None = None  # of the same shape
        self.edges: Tensor | None = None  # (rows, 2): the units that define t, where gradient flows through it
        self.boundary = WarmBoundary()

    @torch.no_grad()
    def set(self, scores: Tensor, sparsity: float, tau: float) -> None:
        """Puts t between the units that a sparsity keeps and prunes; below one unit nothing is masked.

        scores: (rows, units); of single weights, they may have a sign where gradient need not flow through t.
        """
        count = count_to_prune(sparsity, scores.shape[1])
        if count == 0:
            self.clear()
            return
        largest_pruned, smallest_kept = self.boundary(scores, count)
        self.squared = (0.5 * (largest_pruned + smallest_kept)).square()
        temperature = tau * self.squared if self.relative else torch.full_like(largest_pruned, tau)
        # Where zeros reach the threshold t = 0, and 0 / 0 would be NaN; so would w^2 / tau x 0 with the smallest tau.
        self.temperature = temperature.clamp_(min=max(1e-30, torch.finfo(temperature.dtype).tiny))
        if self.differentiable:
            lower = (scores == largest_pruned).int().argmax(dim=1, keepdim=True)
            upper = (scores == smallest_kept).int().argmax(dim=1, keepdim=True)
            self.edges = torch.cat([lower, upper], dim=1)

    def clear(self) -> None:
        """Back to no mask."""
        self.squared = self.edges = None

    def mask(self, scores: Tensor) -> Tensor:
        """m of every unit, shape (rows, units), in [0, 1]. `set` must have been called."""
        squared = self.squared
        if self.edges is not None:
            squared = scores.gather(1, self.edges).mean(dim=1, keepdim=True).square()
        return ((scores.square() - squared) / self.temperature).sigmoid()


class SoftMask(nn.Module):
    """The parametrization w -> m(w) w of one weight, whose units all lie in it; with a hard mask, w -> mask x w."""

    def __init__(self, pattern: TensorPattern, threshold: Threshold, layer: nn.Module) -> None:
        """layer: the module that has the weight."""
        super().__init__()
        self.pattern = pattern
        self.threshold = threshold
        self.recomputed = Recomputed(layer)
        self.hard: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the shape of `weight`."""
        threshold = self.threshold
        if self.hard is not None:
            return weight * self.hard
        if threshold.squared is None:
            return weight
        if threshold.edges is None and self.pattern.single_weights:
            return self.recomputed(soft_masked, weight, threshold.squared, threshold.temperature)
        mask = threshold.mask(self.pattern.units(weight.abs()))
        return weight * self.pattern.expand(mask, weight.shape)


class PDP(Pruner):
    """Soft masks from the weights themselves."""

    soft = True

    def __init__(
        self,
        *,
        tau: float,
        tau_end: float | None,
        tau_relative: bool,
        threshold_gradient: bool,
        start_accuracy: float | None,
        start_patience: int,
        harden_at: float,
        **pruner: Any,
    ) -> None:
        """Keeps the arguments.

        tau: temperature, in units of w^2, or with `tau_relative` of the layer's t^2. tau_end: the temperature of the
        last step with soft masks, which `tau` moves to by an equal factor in every step; None for a constant one.
        threshold_gradient: let gradient flow through t. start_accuracy: begin the schedule after the headline
        validation metric was at least this for `start_patience` evaluations running, instead of at the schedule's own
        start. harden_at: fraction of training after which, once the schedule is at the target, the hard masks are fixed
        and the rest is fine-tuning; 1 for never.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__(**pruner)
        for key, value in (("tau", tau), ("tau_end", tau if tau_end is None else tau_end)):
            if value <= 0:
                raise ValueError(f"method.{key}={value}: must be positive, a temperature in units of squared weights")
        if not 0 < harden_at <= 1:
            raise ValueError(f"method.harden_at={harden_at}: must be in (0, 1], a fraction of training; 1 for never")
        if start_patience < 1:
            raise ValueError(f"method.start_patience={start_patience}: must be at least 1 evaluation")
        self.tau = tau
        self.tau_end = tau if tau_end is None else tau_end
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
        """Attaches a SoftMask to every weight that is a group, and gates where units span several parameters."""
        super().setup(model, setting)
        self.headline = setting.task.headline
        self.soft_steps = round(self.harden_at * setting.timeline.total_steps)
        self.thresholds = {
            name: Threshold(relative=self.tau_relative, differentiable=self.threshold_gradient) for name in self.groups
        }
        within = {name: group for name, group in self.groups.items() if isinstance(group, TensorGroup)}
        across = [group for group in self.groups.values() if isinstance(group, SliceGroup)]
        self.soft_masks = {
            name: SoftMask(group.pattern, self.thresholds[name], owner(model, name)[0])
            for name, group in within.items()
        }
        self.gates = Gates(across, self._open_gates)
        self.attach(model, self.soft_masks | self.gates.parametrizations)
        if across:
            self.gates.watch(model)

    def before_step(self, step: int) -> bool:
        """Fixes the budgets when pruning begins; then moves the thresholds; hardens when it is time."""
        if self.masks or self.offset is None:
            return False
        sparsity = self.schedule(self.target, step - self.offset, self.timeline)
        if step >= self.soft_steps and sparsity >= self.target:
            self._fix_budget()
            self._harden()
            return True
        if sparsity == 0:
            return False
        self._fix_budget()
        tau = self.tau * (self.tau_end / self.tau) ** min(1.0, step / max(1, self.soft_steps - 1))
        for name, group in self.groups.items():
            self.current[name] = self.schedule(self.final[name], step - self.offset, self.timeline)
            if self.pattern.single_weights and not self.threshold_gradient:
                scores = in_memory_order(self.weights[name]).reshape(1, -1)  # no copy of the magnitudes
            else:
                scores = group.scores(self.magnitudes)
            self.thresholds[name].set(scores, self.current[name], tau)
        return False

    def _open_gates(self) -> dict[str, Tensor]:
        """m of each unit of the groups that span several parameters; gradient flows back to their weights."""
        gates = {}
        for name, group in self.groups.items():
            threshold = self.thresholds[name]
            if threshold.squared is not None and name not in self.soft_masks:
                gates[name] = threshold.mask(group.scores(self.weights))[0]
        return gates

    def _fix_budget(self) -> None:
        if not self.final:
            self.final = self.layer_budget(self.magnitudes, self.target)

    def _harden(self) -> None:
        self.masks = self.pruned(self.magnitudes, self.final)
        self.current = dict(self.final)
        for threshold in self.thresholds.values():
            threshold.clear()

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
        return self.share(self.current)

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with mask x w, the masks at the sparsity of this moment."""
        if not self.masks:
            for name, sparsity in self.current.items():
                group = self.groups[name]
                keep = group.keep(self.magnitudes, sparsity)
                if name in self.soft_masks:
                    self.soft_masks[name].hard = group.masks(keep)[name]
                else:
                    self.gates.closed[name] = keep[0]
        try:
            yield
        finally:
            self.gates.closed.clear()
            for soft_mask in self.soft_masks.values():
                soft_mask.hard = None

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """The mean threshold over groups and the part of the units whose mask is undecided (0.01 < m < 0.99)."""
        thresholds, undecided, total = [], 0, 0
        for name, group in self.groups.items():
            threshold = self.thresholds[name]
            if threshold.squared is None:
                continue
            mask = threshold.mask(group.scores(self.magnitudes))
            thresholds.append(threshold.squared.sqrt().mean().item())
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
        self.gates.close()
        for soft_mask in self.soft_masks.values():
            soft_mask.recomputed.remove()
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
