"""Predicting a value."""

import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.datasets.base import Batch
from pruneexp.tasks.base import Task, predict
from pruneexp.tasks.metrics import REGRESSION, check_metrics


class Regression(Task):
    """The squared error of a model's only output."""

    def __init__(self, *, metrics: tuple[str, ...]) -> None:
        """metrics: names in `REGRESSION`, headline first.

        Raises:
            ValueError: there is no such metric.
        """
        check_metrics(metrics, regression=True)
        self.headline, self.metrics = metrics[0], metrics

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean squared error."""
        return F.mse_loss(predict(model, batch["inputs"]).float().squeeze(1), batch["labels"])

    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The metrics, and as `loss` the mean squared error."""
        values = outputs.squeeze(1)
        scores = {name: REGRESSION[name](values, labels) for name in self.metrics}
        return {"loss": F.mse_loss(values, labels).item(), **scores}
