"""Random numbers that are a pure function of a key, alike on every process and device."""

import numpy as np
import torch

# The first number of a key: keeps the streams apart that share a seed and a counter.
ORDER, AUGMENTATION, TEST, VALIDATION, SUBSET, AUXILIARY = range(6)


def mixed(*key: int) -> int:
    """A seed in [0, 2**63) that only the key decides; keys that differ anywhere give unrelated seeds.

    key: non-negative. NumPy's SeedSequence hashes it, which NumPy promises not to change between versions.
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def generator(*key: int) -> torch.Generator:
    """A CPU generator seeded by `mixed(*key)`."""
    return torch.Generator().manual_seed(mixed(*key))
