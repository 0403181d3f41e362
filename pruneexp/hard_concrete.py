"""The hard-concrete distribution: a gate that is exactly 0 or exactly 1 with some probability, and differentiable.

Louizos, Welling, Kingma 2018, "Learning Sparse Neural Networks through L0 Regularization" (arXiv 1712.01312).
"""

import math
from dataclasses import dataclass

from torch import Tensor

EDGE = 1e-6
"""Distance that uniform numbers keep from 0 and 1, where the logit is infinite (CoFi's code)."""


@dataclass(frozen=True)
class HardConcrete:
    """The distribution of z in [0, 1] around a location log alpha; every function works element by element.

    temperature (beta): the smaller, the rarer values strictly between 0 and 1. low (gamma) < 0, high (zeta) > 1: the
    interval that the concrete variable is stretched to before it is cut to [0, 1]. sharpness: of `value`.

    Raises:
        ValueError: a number is out of its range.
    """

    temperature: float
    low: float
    high: float
    sharpness: float

    def __post_init__(self) -> None:
        for key in ("temperature", "sharpness"):
            if getattr(self, key) <= 0:
                raise ValueError(f"gate.{key}={getattr(self, key)}: must be positive")
        if not (self.low < 0 and self.high > 1):
            raise ValueError(f"gate.low={self.low}, gate.high={self.high}: want low < 0 and high > 1")

    def sample(self, log_alpha: Tensor, uniform: Tensor) -> Tensor:
        """z = clip(s (zeta - gamma) + gamma, 0, 1), s = sigmoid((log u - log(1 - u) + log alpha) / beta).

        uniform: numbers u in (0, 1), of the shape of `log_alpha`.
        """
        noise = uniform.clamp(EDGE, 1 - EDGE).logit()
        return (((noise + log_alpha) / self.temperature).sigmoid() * (self.high - self.low) + self.low).clamp(0, 1)

    def openness(self, log_alpha: Tensor) -> Tensor:
        """P(z > 0) = sigmoid(log alpha - beta log(-gamma / zeta))."""
        return (log_alpha - self.temperature * math.log(-self.low / self.high)).sigmoid()

    def value(self, log_alpha: Tensor) -> Tensor:
        """A gate without noise, in (0, 1): sigmoid(sharpness log alpha / beta).

        CoFi's rule, with sharpness 0.8 after Wang, Wohlwend, Lei 2020 (arXiv 1910.04732); Louizos et al. have
        clip(sigmoid(log alpha) (zeta - gamma) + gamma, 0, 1).
        """
        return (self.sharpness * log_alpha / self.temperature).sigmoid()
