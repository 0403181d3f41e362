"""Which examples make up each batch: a pure function of (seed, step), so that a run can start again at any step."""

from collections.abc import Iterator

import torch

from pruneexp.datasets.base import Draw
from pruneexp.datasets.seeds import AUGMENTATION, ORDER, generator, mixed


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches in `n` examples (the rest of each epoch is dropped); 1 where there are fewer than one batch."""
    return max(1, n // batch_size)


def train_draws(
    n: int, *, batch_size: int, seed: int, first_step: int, last_step: int, rank: int = 0, world_size: int = 1
) -> Iterator[Draw]:
    """The draws of the steps first_step, first_step + 1, ..., last_step - 1, counted from 0.

    n: examples in the split. batch_size: over all processes; process `rank` of `world_size` serves an equal,
    contiguous share. Every epoch is a fresh permutation; its last, partial batch is dropped. With fewer than
    `batch_size` examples a batch holds all `n`.

    Raises:
        ValueError: the batch does not divide by the number of processes.
    """
    size = min(batch_size, n)
    if size % world_size:
        raise ValueError(
            f"batch_size={batch_size}: a batch of {size} examples does not divide by {world_size} processes"
        )
    return _train_draws(n, size, seed, range(first_step, last_step), _share(size, rank, world_size))


def _train_draws(n: int, size: int, seed: int, steps: range, part: slice) -> Iterator[Draw]:
    per_epoch = steps_per_epoch(n, size)
    order, order_epoch = torch.empty(0, dtype=torch.int64), -1
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if epoch != order_epoch:
            order, order_epoch = torch.randperm(n, generator=generator(ORDER, seed, epoch)), epoch
        indices = order[position * size : (position + 1) * size]
        yield Draw(indices, part, seed=mixed(AUGMENTATION, seed, step))


def eval_draws(n: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Draw]:
    """Draws that hold each of `n` examples once and in order, without augmentation.

    Every draw is equally large and divides by `world_size`, so that all processes gather equal shares and a compiled
    model sees one shape: the last one repeats the last example, and `Draw.count` says how many rows are to be kept.
    """
    size = -(-min(batch_size, n) // world_size) * world_size  # rounded up
    part = _share(size, rank, world_size)
    for start in range(0, n, size):
        indices = torch.arange(start, start + size).clamp_(max=n - 1)
        yield Draw(indices, part, seed=None, count=min(size, n - start))


def _share(size: int, rank: int, world_size: int) -> slice:
    rows = size // world_size
    return slice(rank * rows, (rank + 1) * rows)
