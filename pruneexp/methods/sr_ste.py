"""SR-STE: N:M sparsity learned from scratch (Zhou et al. 2021, arXiv 2102.04010).

    forward     w_hat = mask(w) w                      mask: the n largest |w| of every m, anew in every step
    backward    dL/dw = dL/dw_hat + lambda (1 - mask) w

The straight-through gradient reaches pruned weights too, so that they can come back; the second term, the paper's
sparse-refined one, shrinks them, so that they do not do so all the time (lambda 2e-4 in the paper's code).

    prune-run method=sr_ste pattern.n=2 pattern.m=4 model=resnet20 dataset=cifar10
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from pruneexp.masks import Masks
from pruneexp.methods.base import Pruner, Setting


class _Refined(torch.autograd.Function):
    """mask x w with SR-STE's gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return torch.addcmul(gradient, weight, (~mask).to(weight.dtype), value=ctx.decay), None, None


class RefinedMask(nn.Module):
    """The parametrization w -> mask x w of one layer; the identity until there is a mask."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.mask: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the shape of `weight`."""
        return weight if self.mask is None else _Refined.apply(weight, self.mask, self.decay)


class SRSTE(Pruner):
    """Hard masks in the forward pass, gradients for all weights."""

    def __init__(self, *, decay: float, **pruner: Any) -> None:
        """decay: lambda, the pull of pruned weights towards zero.

        Raises:
            ValueError: it is negative.
        """
        super().__init__(**pruner)
        if decay < 0:
            raise ValueError(f"method.decay={decay}: must not be negative")
        self.decay = decay

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches a RefinedMask to every prunable weight."""
        super().setup(model, setting)
        self.refined = {name: RefinedMask(self.decay) for name in self.weights}
        self.attach(model, self.refined)

    def before_step(self, step: int) -> bool:
        """Chooses the masks of this step."""
        wanted = self.schedule(self.target, step, self.timeline)
        if wanted > 0:
            self._choose(wanted)
        return False  # `masks` stays empty: the trainer must not zero weights that may come back

    @torch.no_grad()
    def _choose(self, wanted: float) -> None:
        for name, mask in self.pruned(self.magnitudes, self.layer_budget(self.magnitudes, wanted)).items():
            self.refined[name].mask = mask

    def sparsity(self) -> float:
        """The fraction of the prunable weights that the masks in the forward pass prune."""
        pruned = sum(int((~refined.mask).sum()) for refined in self.refined.values() if refined.mask is not None)
        return pruned / sum(weight.numel() for weight in self.weights.values())

    def finalize(self) -> Masks:
        """The masks of the last step."""
        if any(refined.mask is None for refined in self.refined.values()):
            self._choose(self.target)
        self.masks = {name: refined.mask for name, refined in self.refined.items()}
        for refined in self.refined.values():
            refined.mask = None
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """The masks in the forward pass."""
        return {"masks": self.masks, "refined": {name: refined.mask for name, refined in self.refined.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        super().load_state_dict(state)
        for name, mask in state["refined"].items():
            self.refined[name].mask = mask
