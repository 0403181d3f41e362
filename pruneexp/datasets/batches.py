"""What is done to a batch between the stream and the model: memory layout, and pieces for gradient accumulation."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pruneexp.datasets.base import Batch


def channels_last(batch: Batch) -> Batch:
    """The batch with its images, and those of its auxiliary tasks, in channels-last memory format."""
    if isinstance(batch["inputs"], Tensor):
        batch["inputs"] = batch["inputs"].contiguous(memory_format=torch.channels_last)
    for other in batch.get("auxiliary", {}).values():
        channels_last(other)
    return batch


def micro_batches(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in at most `parts` pieces of nearly equal size.

    Batches of auxiliary tasks are cut into as many pieces. The key `share` of such a piece is the fraction of its
    task's rows that it holds over that of the target's piece beside it: so the losses of all pieces, each times the
    target's fraction, add up to that of the batch.
    """
    rows = len(batch["labels"])
    size = math.ceil(rows / parts)
    starts = range(0, rows, size)
    for index, start in enumerate(starts):
        piece = _piece(batch, slice(start, start + size))
        fraction = len(piece["labels"]) / rows
        if "auxiliary" in batch:
            piece["auxiliary"] = {
                name: _auxiliary_piece(other, index, len(starts), fraction)
                for name, other in batch["auxiliary"].items()
            }
        yield piece


def _auxiliary_piece(batch: Batch, index: int, pieces: int, fraction: float) -> Batch:
    """Piece `index` of `pieces`, with its share. fraction: of the target's rows that are in the piece beside it."""
    rows = len(batch["labels"])
    own = slice(index * rows // pieces, (index + 1) * rows // pieces)
    return {**_piece(batch, own), "share": (own.stop - own.start) / rows / fraction}


def _piece(batch: Batch, rows: slice) -> Batch:
    """Rows of a batch of one task."""
    inputs = batch["inputs"]
    cut = {key: value[rows] for key, value in inputs.items()} if isinstance(inputs, dict) else inputs[rows]
    return {**batch, "inputs": cut, "labels": batch["labels"][rows]}
