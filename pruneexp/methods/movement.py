"""Movement pruning (Sanh, Wolf, Rush 2020, arXiv 2005.07683): weights that move towards zero go, not those near zero.

    forward     W_hat = W * M,   M = Top_v(S)                  v: the fraction that is kept; S: a learned score per unit
    backward    dL/dS = sum over the unit's weights of dL/dW_hat * W       straight through Top_v, for pruned units too
                dL/dW = dL/dW_hat * M

With gradient descent S falls by the rate times (dL/dW_hat) W: it gains where a step makes |w| larger. Pruned weights
stand still, but their scores go on, so that they can come back. S starts at 0 and has a learning rate of its own. v
falls from 1 along a cubic schedule, between a start with all weights and a cool-down with few.

A unit is a weight in the paper. Blocks have a score each, which sums over their weights (as in Lagunas et al. 2021,
arXiv 2109.04838); so have channels, heads and feed-forward units, over the weights where their output is switched off.

    prune-run method=movement model=bert dataset=glue/mrpc optimizer.learning_rate=3e-5 sparsity=0.85
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.groups import Group, Slice, SliceGroup, merged
from pruneexp.masks import Masks, count_to_prune
from pruneexp.methods.base import Pruner, Setting
from pruneexp.patterns import TensorPattern
from pruneexp.selection import keep_largest


class Scores(nn.Module):
    """The scores of a group's units, S, and which units they keep."""

    def __init__(self, real: Tensor) -> None:
        """real: bool (rows, units), False for the padding of a pattern."""
        super().__init__()
        self.values = nn.Parameter(torch.zeros(real.shape, device=real.device))
        self.real = real
        self.keep = torch.ones_like(real)

    def choose(self, sparsity: float) -> None:
        """Keeps all but the round(sparsity x units) lowest scores of each row."""
        self.keep = keep_largest(self.ranked(), count_to_prune(sparsity, self.keep.shape[1]))

    def ranked(self) -> Tensor:
        """The scores, with padding below all others."""
        return torch.where(self.real, self.values.detach(), -torch.inf)

    def mask(self) -> Tensor:
        """M, shape (rows, units), of ones and zeros, with the gradient of S itself."""
        return self.keep.to(self.values.dtype) + (self.values - self.values.detach())


class Masked(nn.Module):
    """The parametrization w -> M w of one parameter, by the units of one group or of several."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.ModuleList()
        self.places: list[TensorPattern | Slice] = []  # where the units of each lie in the parameter

    def add(self, scores: Scores, place: TensorPattern | Slice) -> None:
        """Lets these scores mask the parameter."""
        self.scores.append(scores)
        self.places.append(place)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the shape of `weight`."""
        for scores, place in zip(self.scores, self.places, strict=True):
            mask = scores.mask()
            is_slice = isinstance(place, Slice)
            weight = weight * (place.expand(mask[0], weight.dim()) if is_slice else place.expand(mask, weight.shape))
        return weight


class Movement(Pruner):
    """Keeps the units with the highest learned scores."""

    def __init__(self, *, score_learning_rate: float, **pruner: Any) -> None:
        """score_learning_rate: of S, at the peak of the optimizer's schedule.

        Raises:
            ValueError: it is not positive.
        """
        super().__init__(**pruner)
        if score_learning_rate <= 0:
            raise ValueError(f"method.score_learning_rate={score_learning_rate}: must be positive")
        self.score_learning_rate = score_learning_rate
        self.current: dict[str, float] = {}  # the sparsity of each group now

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Gives every group its scores and lets them mask its weights."""
        super().setup(model, setting)
        self.scores = {name: Scores(_real_units(group, self.weights)) for name, group in self.groups.items()}
        self.attach(model, masked(self.groups, self.scores))

    def param_groups(self) -> list[dict[str, Any]]:
        """One group with every score, without weight decay."""
        return [{"params": [scores.values for scores in self.scores.values()], "lr": self.score_learning_rate}]

    def before_step(self, step: int) -> bool:
        """Chooses what this step computes with. `masks` stays empty: pruned weights may come back."""
        wanted = self.schedule(self.target, step, self.timeline)
        if wanted > 0:
            self._choose(wanted)
        return False

    def _choose(self, wanted: float) -> None:
        if self.pattern.fixed_sparsity is None:
            scores = {name: self._of_layer(name) for name in self.groups}
            self.current = self.budget(scores, wanted, self._unit_sizes())
        else:
            self.current = dict.fromkeys(self.groups, wanted)
        for name, sparsity in self.current.items():
            self.scores[name].choose(sparsity)

    def _of_layer(self, name: str) -> Tensor:
        """The scores of a group as budgets want them: those of single weights in the shape of their tensor."""
        values = self.scores[name].ranked()
        return values.view(self.weights[name].shape) if self.groups[name].unit_size == 1 else values

    def sparsity(self) -> float:
        """The fraction of the prunable weights that the masks of this moment prune."""
        if self.masks or not self.current:
            return super().sparsity()
        total = sum(weight.numel() for weight in self.weights.values())
        return sum(group.pruned_weights(self.current[name]) for name, group in self.groups.items()) / total

    def finalize(self) -> Masks:
        """The masks of the last step."""
        if not self.current:
            self._choose(self.target)
        self.masks = merged(group.masks(self.scores[name].keep) for name, group in self.groups.items())
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """What is kept; the scores themselves are in the model's state."""
        kept = {name: scores.keep for name, scores in self.scores.items()}
        return {"masks": self.masks, "keep": kept, "current": self.current}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.current = state["current"]
        for name, keep in state["keep"].items():
            self.scores[name].keep = keep


def masked(groups: dict[str, Group], scores: dict[str, Scores]) -> dict[str, Masked]:
    """The parametrizations of all parameters that the groups' scores mask, by dense name.

    Where units span several parameters, only those that switch off what a unit passes on are masked: were all of its
    weights, none would get a gradient from behind the others' zeros, and a pruned unit could not come back.
    """
    parametrizations: dict[str, Masked] = defaultdict(Masked)
    for name, group in groups.items():
        if isinstance(group, SliceGroup):
            for part in group.switches:
                parametrizations[part.parameter].add(scores[name], part)
        else:
            parametrizations[name].add(scores[name], group.pattern)
    return dict(parametrizations)


def _real_units(group: Group, weights: dict[str, nn.Parameter]) -> Tensor:
    """Which units of a group have weights, bool (rows, units); the others are a pattern's padding."""
    return group.scores({name: torch.ones_like(weights[name]) for name in group.parameters}) > 0
