"""Optimizers with their learning-rate schedules."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn

from pruneexp.masks import dense_name

SCHEDULES = ("cosine", "linear", "step", "constant")


class Recipe(ABC):
    """An optimizer to be built, and its learning rate as a pure function of the step (so nothing is to be resumed)."""

    def __init__(
        self,
        *,
        learning_rate: float,
        weight_decay: float,
        decay_norms_and_biases: bool,
        schedule: str,
        warmup: float,
        milestones: list[float],
        gamma: float,
        clip_norm: float | None,
    ) -> None:
        """Keeps the arguments.

        learning_rate: at its peak. schedule: one of SCHEDULES, after a linear warm-up of `warmup` (fraction of
        training). milestones: fractions of training at which schedule=step multiplies the rate by `gamma`.
        clip_norm: largest gradient norm, None for no clipping.

        Raises:
            ValueError: a value is out of its range.
        """
        if learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate={learning_rate}: must be positive")
        if weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay={weight_decay}: must not be negative")
        if schedule not in SCHEDULES:
            raise ValueError(f"optimizer.schedule={schedule}: want one of {', '.join(SCHEDULES)}")
        if not 0 <= warmup < 1:
            raise ValueError(f"optimizer.warmup={warmup}: must be in [0, 1), a fraction of training")
        if any(not 0 < milestone < 1 for milestone in milestones):
            raise ValueError(f"optimizer.milestones={milestones}: must be in (0, 1), fractions of training")
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"optimizer.clip_norm={clip_norm}: must be positive, or null for no clipping")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay_norms_and_biases = decay_norms_and_biases
        self.schedule = schedule
        self.warmup = warmup
        self.milestones = milestones
        self.gamma = gamma
        self.clip_norm = clip_norm

    @abstractmethod
    def optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """A new optimizer over parameter groups that each have `params`, `lr` and `weight_decay`."""

    def build(self, model: nn.Module, extra_groups: Iterable[dict] = ()) -> torch.optim.Optimizer:
        """The optimizer of a model and of a method's own parameters, which are left out of the model's groups.

        extra_groups: the method's, with keys as torch's optimizers have them: `params`; `lr`, at its peak, the recipe's
        by default; `weight_decay`, 0 by default; `maximize`. Besides, `scheduled`: False for a constant rate; `adam`:
        True for Adam whatever the recipe is, for parameters whose gradients have no natural scale.
        """
        extra = [{"lr": self.learning_rate, "weight_decay": 0.0, **group} for group in extra_groups]
        taken = {id(parameter) for group in extra for parameter in group["params"]}
        decayed, undecayed = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                is_weight = parameter.ndim > 1 or not dense_name(name).endswith(("bias", "weight"))
                (decayed if is_weight or self.decay_norms_and_biases else undecayed).append(parameter)
        groups = [
            {"params": decayed, "lr": self.learning_rate, "weight_decay": self.weight_decay},
            {"params": undecayed, "lr": self.learning_rate, "weight_decay": 0.0},
            *extra,
        ]
        groups = [group for group in groups if group["params"]]
        for group in groups:
            group["peak_lr"] = group["lr"]
        kinds: dict[bool, list[dict]] = {False: [], True: []}
        for group in groups:
            kinds[group.pop("adam", False)].append(group)
        optimizer = self.optimizer(kinds[False])
        return Joined([optimizer, torch.optim.AdamW(kinds[True])]) if kinds[True] else optimizer

    def set_rate_(
        self, optimizer: torch.optim.Optimizer, step: int, total_steps: int, *, peak: float | None = None
    ) -> None:
        """Sets the learning rate of a step in place, in every group. peak: in place of `learning_rate`."""
        factor = self.factor(step, total_steps) * (1.0 if peak is None else peak / self.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (factor if group.get("scheduled", True) else 1.0)

    def factor(self, step: int, total_steps: int) -> float:
        """The learning rate of a step over its peak, in [0, 1]."""
        warmup_steps = round(self.warmup * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "step":
            return self.gamma ** sum(step >= milestone * total_steps for milestone in self.milestones)
        return 1.0


class Joined(torch.optim.Optimizer):
    """Several optimizers as one, with the groups and the state of all."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        """parts: each with groups of its own."""
        self.parts: list[torch.optim.Optimizer] = []
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def step(self, closure: None = None) -> None:
        """A step of each."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state: dict) -> None:
        """Takes back what `state_dict` gave."""
        super().load_state_dict(state)
        self._share()

    def _share(self) -> None:
        """Lets the parts work on this optimizer's groups, in order, and on its state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


class SGD(Recipe):
    """Stochastic gradient descent with momentum."""

    def __init__(self, *, momentum: float, nesterov: bool, **recipe: object) -> None:
        super().__init__(**recipe)
        if not 0 <= momentum < 1:
            raise ValueError(f"optimizer.momentum={momentum}: must be in [0, 1)")
        self.momentum = momentum
        self.nesterov = nesterov

    def optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """torch's SGD."""
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0)


class AdamW(Recipe):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    def __init__(self, *, betas: list[float], epsilon: float, **recipe: object) -> None:
        super().__init__(**recipe)
        if len(betas) != 2 or any(not 0 <= beta < 1 for beta in betas):
            raise ValueError(f"optimizer.betas={betas}: want two numbers in [0, 1)")
        self.betas = (betas[0], betas[1])
        self.epsilon = epsilon

    def optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """torch's AdamW."""
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.epsilon)
