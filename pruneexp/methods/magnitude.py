"""Magnitude pruning: the weights nearest to zero go.

With a constant schedule this is one-shot pruning followed by fine-tuning (`method=magnitude`; Han et al. 2015,
arXiv 1506.02626). With the cubic schedule it is gradual magnitude pruning (`method=gmp`; Zhu & Gupta 2017,
arXiv 1710.01878): pruned weights get no gradient and stay pruned.

    prune-run method=gmp model=resnet20 dataset=cifar10 sparsity=0.9
"""

from collections.abc import Mapping

from torch import Tensor

from pruneexp.methods.base import Scored


class Magnitude(Scored):
    """Scores |w|."""

    def scores(self, step: int) -> Mapping[str, Tensor]:
        """|w| of every prunable weight."""
        return self.magnitudes
