"""Several tasks on one network: a target, and auxiliary tasks that help it.

    L = w_T L_T + sum over auxiliary tasks A of w_A L_A

(the sum that Dery, Hannun and Grangier 2023, arXiv 2311.06382, minimise; with one mask for all tasks it is their
single-mask baseline). The network is shared, each task has a head of its own. The metrics are the target's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from pruneexp.datasets.base import TARGET, Batch
from pruneexp.models.heads import Heads
from pruneexp.tasks.base import Task


class MultiTask(Task):
    """A target and its auxiliary tasks, each with the weight of its loss."""

    def __init__(
        self, target: Task, auxiliary: Mapping[str, Task], *, weights: Mapping[str, float], heads: Heads
    ) -> None:
        """Wraps tasks.

        auxiliary: name -> task. weights: of the losses, by name, `TARGET` for the target's. heads: of the same names,
        around the network that is trained.
        """
        self.tasks = {TARGET: target, **auxiliary}
        self.names = tuple(self.tasks)
        self.headline = target.headline
        self.weights = weights
        self.heads = heads
        if target.own is not None:
            heads.add_module("target", target.own)

    def module(self, model: nn.Module) -> nn.Module:
        """The network, which `model` is, with the heads."""
        assert model is self.heads.network, "the heads were made for another network"
        return self.heads

    @contextmanager
    def serving(self, name: str) -> Iterator[Task]:
        """A context in which the network has the head of that task, which is given, and `current` is its name."""
        self.current = name
        try:
            if name == TARGET:
                yield self.tasks[name]
            else:
                with self.heads.of(name):
                    yield self.tasks[name]
        finally:
            self.current = TARGET

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """L over the tasks in the batch, a scalar. model: the network, its `module`, or a wrapper of that."""
        module = self.heads if model is self.heads.network else model
        return module(partial(self._weighted, batch))

    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The target's metrics of its outputs."""
        return self.tasks[TARGET].score(outputs, labels)

    def _weighted(self, batch: Batch) -> Tensor:
        parts = {batch.get("task", TARGET): batch, **batch.get("auxiliary", {})}
        return sum(self.weights[name] * part.get("share", 1.0) * self._own(name, part) for name, part in parts.items())

    def _own(self, name: str, batch: Batch) -> Tensor:
        with self.serving(name) as task:
            return task.loss(self.heads.network, batch)
