"""Distillation: the loss of a task, mixed with the distance from a teacher's outputs.

    L = (1 - a) L_task + a T^2 KL(softmax(teacher / T) || softmax(student / T))        classes
    L = (1 - a) L_task + a (student - teacher)^2                                       regression

(Hinton, Vinyals, Dean 2015, arXiv 1503.02531; T^2 keeps the gradient's size independent of the temperature T.)
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.datasets.base import Batch
from pruneexp.tasks.base import Task, predict


class Distillation(Task):
    """A task whose training loss also has a teacher; its metrics are the task's."""

    def __init__(
        self, task: Task, teacher_model: nn.Module, *, teacher: str, weight: float, temperature: float
    ) -> None:
        """Wraps a task.

        teacher_model: the teacher, in eval mode on the device of the batches. teacher: its name, for the record.
        weight: a, in [0, 1]. temperature: T, positive.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 0 <= weight <= 1:
            raise ValueError(f"distillation.weight={weight}: must be in [0, 1]")
        if temperature <= 0:
            raise ValueError(f"distillation.temperature={temperature}: must be positive")
        self.task = task
        self.headline = task.headline
        self.teacher_model = teacher_model
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the teacher cannot teach this model."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mixed loss; both parts see the same forward pass of the student."""
        outputs = predict(model, batch["inputs"])
        with torch.no_grad():
            wanted = predict(self.teacher_model, batch["inputs"])
        return self.mixed(outputs, wanted, batch)

    def mixed(self, outputs: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        """L of the student's outputs and the teacher's, both (batch, outputs), a scalar."""
        own = self.task.loss(_given(outputs), batch)
        return (1 - self.weight) * own + self.weight * self.distance(outputs.float(), wanted.float())

    def distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """The mean distance of the student's outputs from the teacher's, both (batch, outputs), a scalar."""
        if outputs.shape[1] == 1:
            return F.mse_loss(outputs, wanted)
        student = (outputs / self.temperature).log_softmax(dim=1)
        teacher = (wanted / self.temperature).log_softmax(dim=1)
        return self.temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The task's metrics."""
        return self.task.score(outputs, labels)


def _given(outputs: Tensor) -> Callable[..., Tensor]:
    """A stand-in for a model whose outputs are there already, so that a task's own loss can be asked for."""
    return lambda *inputs, **named_inputs: outputs
