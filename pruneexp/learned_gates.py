"""Gates that are learned: a location log alpha per unit, and what is sampled from it; for one task or for several.

How several tasks share gates (Dery, Grangier, Hannun 2023, arXiv 2311.06382, section 2.2):

    LearnedGates     one row of gates for all tasks
    SeparateGates    a row for each task
    DeltaGates       log alpha_task = log alpha_base + delta_task, the deltas held small
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.hard_concrete import HardConcrete


class LearnedGates:
    """The gates of all units of a network, in one row that all tasks share.

    rows: names of the rows of gates, the first for every task that has none of its own.
    """

    def __init__(self, start: Tensor, distribution: HardConcrete, *, limit: float) -> None:
        """start: log alpha at first, shape (units,). limit: the largest alpha, and 1 / limit the smallest."""
        self.rows: tuple[str, ...] = ("",)
        self.base = nn.Parameter(start)
        self.distribution = distribution
        self.bound = math.log(limit)
        self.generator = torch.Generator(start.device)

    def parameters(self) -> list[nn.Parameter]:
        """What is learned."""
        return [self.base]

    def param_groups(self, rate: float) -> list[dict[str, Any]]:
        """Optimizer groups of `parameters`. rate: the learning rate of log alpha."""
        return [{"params": self.parameters(), "lr": rate}]

    def log_alpha(self, row: str = "") -> Tensor:
        """The locations of a row at this moment, shape (units,); gradient flows to `parameters`."""
        return self.base

    def penalty(self) -> Tensor | float:
        """What the rows pay for being different."""
        return 0.0

    def seed_(self, seed: int, step: int) -> None:
        """Makes the samples of a step depend on (seed, step) only, so that all processes draw the same."""
        # The trainer reseeds dropout alike, with the number of a process in place of the last 12 bits.
        self.generator.manual_seed((seed * 1_000_003 + step) << 12 | 0xFFF)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Brings every log alpha back to where its gate can still be turned."""
        for parameter in self.parameters():
            parameter.clamp_(-self.bound, self.bound)

    def sample(self, row: str = "") -> Tensor:
        """Fresh values in [0, 1]."""
        log_alpha = self.log_alpha(row)
        uniform = torch.rand(log_alpha.shape, generator=self.generator, device=log_alpha.device)
        return self.distribution.sample(log_alpha, uniform)

    def openness(self, row: str = "") -> Tensor:
        """The probability that each gate is not 0."""
        return self.distribution.openness(self.log_alpha(row))

    def value(self, row: str = "") -> Tensor:
        """The gates without noise, in (0, 1)."""
        return self.distribution.value(self.log_alpha(row))


class SeparateGates(LearnedGates):
    """A row of gates for each task, all with the same start."""

    def __init__(self, start: Tensor, distribution: HardConcrete, *, limit: float, tasks: Iterable[str]) -> None:
        """tasks: names of the rows."""
        super().__init__(start, distribution, limit=limit)
        self.own = {task: nn.Parameter(start.clone()) for task in tasks}
        self.rows = tuple(self.own)

    def parameters(self) -> list[nn.Parameter]:
        """The rows."""
        return list(self.own.values())

    def log_alpha(self, row: str = "") -> Tensor:
        """The row of a task."""
        return self.own[row]


class DeltaGates(LearnedGates):
    """log alpha_task = log alpha_base + delta_task, with the penalty mu sum over tasks of ||delta_task||^2.

    The paper writes z_task = z_base + delta_task of "structural variables" z, in words and without saying whether z is
    the sampled gate or what it is sampled from. The sum is taken before sampling here, so that gates stay in [0, 1].
    """

    def __init__(
        self, start: Tensor, distribution: HardConcrete, *, limit: float, tasks: Iterable[str], mu: float
    ) -> None:
        """tasks: names of the rows. mu: not negative. The deltas start at 0."""
        super().__init__(start, distribution, limit=limit)
        self.delta = {task: nn.Parameter(torch.zeros_like(start)) for task in tasks}
        self.rows = tuple(self.delta)
        self.mu = mu

    def parameters(self) -> list[nn.Parameter]:
        """The base, then the deltas."""
        return [self.base, *self.delta.values()]

    def param_groups(self, rate: float) -> list[dict[str, Any]]:
        """The base, and the deltas at rate / (1 + 2 mu).

        Gradient descent on mu delta^2 overshoots at steps longer than 1 / (2 mu), and Adam's are as long as its rate
        however steep the slope is; so a large mu would make the deltas swing instead of holding them at 0.
        """
        return [
            {"params": [self.base], "lr": rate},
            {"params": list(self.delta.values()), "lr": rate / (1 + 2 * self.mu)},
        ]

    def log_alpha(self, row: str = "") -> Tensor:
        """The base and the delta of a task."""
        return self.base + self.delta[row]

    def penalty(self) -> Tensor:
        """mu sum over tasks of ||delta_task||^2, a scalar."""
        return self.mu * torch.stack([delta.square().sum() for delta in self.delta.values()]).sum()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Brings the base back to its limits, then each delta to where the sum keeps them."""
        self.base.clamp_(-self.bound, self.bound)
        for delta in self.delta.values():
            delta.clamp_(-self.bound - self.base, self.bound - self.base)
