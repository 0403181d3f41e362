"""Random pruning: the control that every other method has to beat.

prune-run method=random sparsity=0.9
"""

import torch
from torch import Tensor

from pruneexp.methods.base import Scored


class Random(Scored):
    """Scores every weight with the same random number throughout a run, so that masks only ever grow."""

    def scores(self, step: int) -> dict[str, Tensor]:
        """Uniform random numbers in [0, 1) that depend on the run's seed and the order of the layers alone."""
        generator = torch.Generator().manual_seed(self.seed)
        return {
            name: torch.rand(weight.shape, generator=generator).to(weight.device)
            for name, weight in self.weights.items()
        }
