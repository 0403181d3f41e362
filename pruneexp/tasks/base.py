"""What a task is: a loss to train with and metrics to report."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.datasets.base import TARGET, Batch

Gather = Callable[[Tensor], Tensor]
"""Concatenates one process's rows, shape (rows, ...), with those of all others."""


def predict(model: nn.Module, inputs: Any) -> Tensor:
    """The model's outputs, shape (batch, outputs): logits, or values for regression."""
    outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(outputs, "logits", outputs)


class Beside(nn.Module):
    """A model, and what a task learns beside it. All forward passes of a step happen inside one call of this module."""

    def __init__(self, model: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.model, self.own = model, own

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` returns, which calls both."""
        return compute()


class Task(ABC):
    """A loss and metrics. All metrics are better when larger.

    Attributes:
        headline: the metric that goes into tables.
        names: of the tasks that are trained together, the target first; a plain task is its own target.
        current: the one that the forward pass of this moment serves, for methods whose masks depend on it.
        own: what the task learns besides the model, None for nothing.
    """

    headline: str
    names: tuple[str, ...] = (TARGET,)
    current: str = TARGET
    own: nn.Module | None = None

    def module(self, model: nn.Module) -> nn.Module:
        """What is trained: the model, or a module around it that holds what the task adds, such as further heads."""
        return model if self.own is None else Beside(model, self.own)

    @contextmanager
    def serving(self, name: str) -> Iterator["Task"]:
        """A context in which the model serves the task of that name in `names`, which is given."""
        yield self

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean training loss of a batch, a scalar."""

    @abstractmethod
    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Metrics of all outputs (examples, outputs) against labels (examples,), `loss` among them."""

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], gather: Gather = lambda rows: rows
    ) -> dict[str, float]:
        """Metrics over all batches, the model in eval mode. Leaves the model in the mode it was in."""
        was_training = model.training
        model.eval()
        outputs, labels = [], []
        for batch in batches:
            kept = slice(batch.get("count"))
            outputs.append(gather(predict(model, batch["inputs"]).float())[kept])
            labels.append(gather(batch["labels"])[kept])
        model.train(was_training)
        return self.score(torch.cat(outputs).cpu(), torch.cat(labels).cpu())
