"""Masks from learned scores: each unit of a group has a score, and a parametrization turns scores into masked weights.

    W_hat = W * M(S),   dL/dS = sum over the unit's weights of dL/dW_hat * W     straight through the step function M

(Sanh, Wolf, Rush 2020, "Movement pruning", arXiv 2005.07683, section 3; the straight-through estimator of Bengio et al.
2013, arXiv 1308.3432). A score per weight, per block, or per unit that spans several parameters.
"""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruneexp.groups import Group, Slice, SliceGroup
from pruneexp.masks import count_to_prune
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

    def choose_above(self, threshold: float, *, at_least: int) -> None:
        """Keeps the units with sigmoid(S) > threshold, in [0, 1), and the `at_least` highest of each row anyhow."""
        scores = self.ranked()
        bound = math.log(threshold / (1 - threshold)) if threshold > 0 else -math.inf
        keep = scores > bound
        if int(keep.sum(dim=1).min()) < at_least:
            keep |= keep_largest(scores, keep.shape[1] - at_least)
        self.keep = keep

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


def masked(groups: Mapping[str, Group], scores: Mapping[str, Scores]) -> dict[str, Masked]:
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


def scores_of(group: Group, weights: Mapping[str, Tensor]) -> Scores:
    """New scores for the units of a group, all 0. weights: of the network, by dense name."""
    ones = {name: torch.ones_like(weights[name]) for name in group.parameters}
    return Scores(group.scores(ones) > 0)  # padding has no weights
