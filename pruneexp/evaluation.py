"""A model's metrics on a split, each process taking its share of the examples."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from pruneexp.datasets.base import TARGET, Split
from pruneexp.datasets.batches import channels_last
from pruneexp.datasets.order import eval_draws
from pruneexp.tasks.base import Task


@dataclass(frozen=True)
class Evaluator:
    """Evaluates `model` on tasks.

    trained: the module around it that holds what the task adds, often the same. batch_size: over all processes.
    in_channels_last: the memory format of images.
    """

    model: nn.Module
    trained: nn.Module
    task: Task
    accelerator: Accelerator
    batch_size: int
    in_channels_last: bool

    def __call__(self, split: Split, task: str = TARGET) -> dict[str, float]:
        """The metrics of a task, by name, on a split of its data, the same on every process."""
        processes = self.accelerator.num_processes
        if processes > 1:
            for buffer in self.trained.buffers():  # batch-norm statistics differ between processes
                torch.distributed.broadcast(buffer, 0)
        draws = eval_draws(
            len(split), batch_size=self.batch_size, rank=self.accelerator.process_index, world_size=processes
        )
        batches = split.serve(draws)
        if self.in_channels_last:
            batches = map(channels_last, batches)
        with self.task.serving(task) as served:
            return served.evaluate(self.model, batches, self.accelerator.gather)
