"""A constraint on the expected sparsity as a saddle point: multipliers that training raises by gradient ascent.

Wang, Wohlwend, Lei 2020, "Structured Pruning of Large Language Models" (arXiv 1910.04732).
"""

import torch
from torch import Tensor, nn


class Lagrangian:
    """lambda_1 (s - t) + lambda_2 (s - t)^2, to be minimised over what s depends on and maximised over both lambdas.

    Below the target, lambda_1 falls under 0 and pulls s up; above it, it rises and pushes s down. lambda_2 only grows.
    """

    def __init__(self, device: torch.device) -> None:
        """Both multipliers start at 0, as in CoFi's code."""
        self.multipliers = nn.Parameter(torch.zeros(2, device=device))

    def __call__(self, sparsity: Tensor, target: float) -> Tensor:
        """The term of the loss, a scalar. sparsity (s): a scalar, expected. target (t)."""
        gap = sparsity - target
        return (self.multipliers * torch.stack([gap, gap.square()])).sum()
