"""Soft movement pruning (Sanh, Wolf, Rush 2020, arXiv 2005.07683): movement pruning with a threshold and a penalty.

    forward     W_hat = W * M,   M = 1[sigmoid(S) > tau]       S: a learned score per unit, from 0
    backward    dL/dS = sum over the unit's weights of dL/dW_hat * W      straight through the threshold
    loss        L + lambda mean over layers of mean sigmoid(S)

No sparsity is asked for: the penalty pulls all scores down, the loss holds those of useful weights up, and lambda, tau
and the learning rate of S decide between them. tau rises from 0 along a cubic schedule and lambda in proportion to it.

As in the authors' code, every layer keeps 0.5 % of its units, those with the highest scores. Their S is trained by
Adam, whose steps are about as large as the rate: to get below tau = 0.1 a score has to fall by 2.2, in 220 steps at
1e-2. With SGD the steps are in proportion to the gradients, which are tiny: take optimizer=adamw.

    prune-run method=soft_movement model=bert dataset=glue/mrpc optimizer.learning_rate=3e-5
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.groups import Group, merged
from pruneexp.learned_masks import masked, scores_of
from pruneexp.masks import Masks
from pruneexp.methods.base import Method, Setting, groups_of
from pruneexp.patterns import Pattern
from pruneexp.schedules import Schedule

logger = logging.getLogger("pruneexp")

KEPT = 0.005  # of each layer, at least; the authors' code


class SoftMovement(Method):
    """Keeps the units whose learned scores stay above a threshold."""

    def __init__(
        self,
        *,
        pattern: Pattern,
        schedule: Schedule,
        exclude: list[str],
        threshold: float,
        penalty_weight: float,
        score_learning_rate: float,
    ) -> None:
        """Keeps the arguments.

        schedule: of the threshold. threshold: tau at its end, in (0, 1). penalty_weight: lambda at its end.
        score_learning_rate: of S, at the peak of the optimizer's schedule.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"method.threshold={threshold}: must be in (0, 1), it is compared with sigmoids")
        if penalty_weight < 0:
            raise ValueError(f"method.penalty_weight={penalty_weight}: must not be negative")
        if score_learning_rate <= 0:
            raise ValueError(f"method.score_learning_rate={score_learning_rate}: must be positive")
        self.pattern = pattern
        self.schedule = schedule
        self.exclude = exclude
        self.threshold = threshold
        self.penalty_weight = penalty_weight
        self.score_learning_rate = score_learning_rate
        self.groups: dict[str, Group] = {}
        self.current = 0.0  # tau now

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Gives every group its scores and lets them mask its weights.

        Raises:
            ValueError: the pattern has a sparsity of its own, or the schedule does not reach the threshold.
        """
        if self.pattern.fixed_sparsity is not None:
            raise ValueError(
                f"pattern={type(self.pattern).__name__}: has a sparsity of its own, but method=soft_movement finds one "
                "itself; take method=movement"
            )
        self.schedule.check(self.threshold, setting.timeline)
        self.timeline = setting.timeline
        self.groups, self.weights, self.companions = groups_of(model, self.pattern, self.exclude, setting.batches)
        self.scores = {name: scores_of(group, self.weights) for name, group in self.groups.items()}
        self.attach(model, masked(self.groups, self.scores))

    def param_groups(self) -> list[dict[str, Any]]:
        """One group with every score, without weight decay."""
        return [{"params": [scores.values for scores in self.scores.values()], "lr": self.score_learning_rate}]

    def before_step(self, step: int) -> bool:
        """Moves the threshold. `masks` stays empty: pruned weights may come back."""
        self.current = self.schedule(self.threshold, step, self.timeline)
        if self.current > 0:
            for scores in self.scores.values():
                scores.choose_above(self.current, at_least=int(KEPT * scores.keep.shape[1]) + 1)
        return False

    def penalty(self) -> Tensor:
        """lambda of this moment x the mean over layers of the mean sigmoid(S)."""
        return self.penalty_weight * self.current / self.threshold * self._mean_sigmoid()

    def _mean_sigmoid(self) -> Tensor:
        return torch.stack([scores.values.sigmoid().mean() for scores in self.scores.values()]).mean()

    def sparsity(self) -> float:
        """The fraction of the prunable weights that the masks of this moment prune."""
        if self.masks:
            return super().sparsity()
        total = sum(weight.numel() for weight in self.weights.values())
        return (
            sum(group.unit_size * int((~self.scores[name].keep).sum()) for name, group in self.groups.items()) / total
        )

    def metrics(self) -> dict[str, float]:
        """The threshold and the mean sigmoid(S), which the penalty lowers."""
        return {"movement/threshold": self.current, "movement/mean_sigmoid": self._mean_sigmoid().item()}

    def finalize(self) -> Masks:
        """The masks of the last step."""
        self.masks = merged(group.masks(self.scores[name].keep) for name, group in self.groups.items())
        self.detach()
        if all(mask.all() for mask in self.masks.values()):
            logger.warning(
                "nothing was pruned: raise method.score_learning_rate or method.penalty_weight, train longer, or take "
                "optimizer=adamw"
            )
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """What is kept; the scores themselves are in the model's state."""
        return {"masks": self.masks, "keep": {name: scores.keep for name, scores in self.scores.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        for name, keep in state["keep"].items():
            self.scores[name].keep = keep
