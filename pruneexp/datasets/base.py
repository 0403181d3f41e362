"""What a dataset is: three splits, served as batches in an order that only (seed, step) decide."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

Batch = dict[str, Any]
"""`inputs`: a float image tensor (batch, channels, height, width), or a dict of token tensors (batch, length);
`labels`: int64 (batch,) for classes, float32 (batch,) for regression; in evaluation `count`: how many of the rows of
all processes together are to be kept (`Draw.count`). With auxiliary tasks also `auxiliary`: a batch of each, by name;
or `task`: the name of the task that this batch belongs to (see `pruneexp.datasets.streams`)."""

TARGET = "target"
"""The name of the target task beside its auxiliary tasks."""


@dataclass(frozen=True)
class DataInfo:
    """What a model and a task must know of a dataset to fit it."""

    kind: str  # "image" or "text"
    num_outputs: int  # number of classes, or 1 for regression
    metrics: tuple[str, ...]  # names in `pruneexp.tasks.metrics`; the first is the headline
    regression: bool = False
    channels: int = 0  # images only
    image_size: int = 0  # images only, pixels a side
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draw:
    """The examples of one global batch, and which of them this process serves.

    indices: int64, (global batch,), positions in the split. part: the slice of `indices` that this process serves.
    seed: of the augmentation, None for no augmentation. Random numbers are drawn for the whole global batch and
    then sliced, so that an example is augmented alike on one process and on many.
    count: in evaluation, how many rows of the global batch are to be kept; the rest repeat the last example to make
    all processes' shares equal. None keeps all.
    """

    indices: torch.Tensor
    part: slice
    seed: int | None
    count: int | None = None


class Split(ABC):
    """The examples of one split."""

    labels: torch.Tensor  # (examples,), int64 classes or float32 values, on the CPU

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """One batch for each draw, in order, on the device given at loading."""


@dataclass(frozen=True)
class Splits:
    """A loaded dataset. Choose on `validation`; report `test` once."""

    info: DataInfo
    train: Split
    validation: Split
    test: Split


class Dataset(ABC):
    """A recipe for splits. Construction and `check` are cheap; `load` reads the data."""

    kind: ClassVar[str]  # "image" or "text"

    @abstractmethod
    def check(self) -> None:
        """Raises ValueError, naming the config key and the remedy, if the data is not there. Reads no examples."""

    @abstractmethod
    def load(self, *, device: torch.device, tokenizer: Callable[[list[str]], Any] | None = None) -> Splits:
        """The splits. `tokenizer` (text only) makes a tokenizer, given the texts of the training split.

        Raises:
            ValueError: the data is damaged or does not have the form that the config says.
        """
