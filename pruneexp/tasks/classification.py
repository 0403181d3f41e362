"""Predicting a class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneexp.datasets.base import Batch
from pruneexp.tasks.base import Task, predict
from pruneexp.tasks.metrics import CLASSIFICATION, check_metrics


class Classification(Task):
    """Cross-entropy, with label smoothing in training."""

    def __init__(self, *, metrics: tuple[str, ...], label_smoothing: float) -> None:
        """metrics: names in `CLASSIFICATION`, headline first. label_smoothing: in [0, 1).

        Raises:
            ValueError: there is no such metric, or the smoothing is out of range.
        """
        check_metrics(metrics, regression=False)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: give a number of at least 0 and below 1")
        self.headline, self.metrics, self.label_smoothing = metrics[0], metrics, label_smoothing

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy with the smoothed labels of Szegedy et al. 2016 (arXiv 1512.00567, section 7)."""
        logits = predict(model, batch["inputs"]).float()
        return F.cross_entropy(logits, batch["labels"], label_smoothing=self.label_smoothing)

    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The metrics, and as `loss` the cross-entropy without smoothing. Logits with a nan in them predict nothing."""
        predictions = torch.where(outputs.isnan().any(1), -1, outputs.argmax(1))
        scores = {name: CLASSIFICATION[name](predictions, labels) for name in self.metrics}
        return {"loss": F.cross_entropy(outputs, labels).item(), **scores}
