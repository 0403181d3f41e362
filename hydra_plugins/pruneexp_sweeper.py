"""Our sweeper where Hydra looks for plugins: modules of this namespace, and no other."""

from pruneexp.sweeps import sweeper


class GridSweeper(sweeper.GridSweeper):
    """`pruneexp.sweeps.sweeper.GridSweeper`, as configs/hydra/sweeper/pruneexp.yaml names it."""
