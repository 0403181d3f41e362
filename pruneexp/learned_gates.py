"""Gates that are learned: one location log alpha per unit, and what is sampled from it."""

import math

import torch
from torch import Tensor, nn

from pruneexp.hard_concrete import HardConcrete


class LearnedGates:
    """The gates of all units of a network, in one row.

    Whoever shares gates between several tasks overrides `log_alpha` and `parameters`; all else is computed from them.
    """

    def __init__(self, start: Tensor, distribution: HardConcrete, *, limit: float) -> None:
        """start: log alpha at first, shape (units,). limit: the largest alpha, and 1 / limit the smallest."""
        self.base = nn.Parameter(start)
        self.distribution = distribution
        self.bound = math.log(limit)
        self.generator = torch.Generator(start.device)

    def parameters(self) -> list[nn.Parameter]:
        """What is learned."""
        return [self.base]

    def log_alpha(self) -> Tensor:
        """The locations of this moment, shape (units,); gradient flows to `parameters`."""
        return self.base

    def seed_(self, seed: int, step: int) -> None:
        """Makes the samples of a step depend on (seed, step) only, so that all processes draw the same."""
        # The trainer reseeds dropout alike, with the number of a process in place of the last 12 bits.
        self.generator.manual_seed((seed * 1_000_003 + step) << 12 | 0xFFF)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Brings every log alpha back to where its gate can still be turned."""
        for parameter in self.parameters():
            parameter.clamp_(-self.bound, self.bound)

    def sample(self) -> Tensor:
        """Fresh values in [0, 1]."""
        log_alpha = self.log_alpha()
        uniform = torch.rand(log_alpha.shape, generator=self.generator, device=log_alpha.device)
        return self.distribution.sample(log_alpha, uniform)

    def openness(self) -> Tensor:
        """The probability that each gate is not 0."""
        return self.distribution.openness(self.log_alpha())

    def value(self) -> Tensor:
        """The gates without noise, in (0, 1)."""
        return self.distribution.value(self.log_alpha())
