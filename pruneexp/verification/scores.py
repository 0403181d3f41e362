"""Test scores of a saved model, computed anew: other batches, another loop, and scikit-learn's and NumPy's metrics."""

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruneexp.datasets.base import DataInfo, Draw, Split

ROWS = 50  # examples at once; not what training evaluates with


@torch.no_grad()
def outputs_on(network: nn.Module, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The model's outputs (examples, outputs) and the labels (examples,) of a whole split, one batch after another."""
    network.eval()
    found, labels = [], []
    for start in range(0, len(split), ROWS):
        positions = torch.arange(start, min(start + ROWS, len(split)))
        (batch,) = split.serve([Draw(positions, slice(0, len(positions)), seed=None)])
        inputs = batch["inputs"]
        outputs = network(**inputs) if isinstance(inputs, dict) else network(inputs)
        found.append(_logits(outputs).float().numpy())
        labels.append(batch["labels"].numpy())
    return np.concatenate(found), np.concatenate(labels)


def _logits(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs.logits


def scores(network: nn.Module, split: Split, info: DataInfo) -> dict[str, float]:
    """The metrics that the data asks for, and the loss without label smoothing."""
    outputs, labels = outputs_on(network, split)
    outputs = outputs.astype(np.float64)
    if info.regression:
        predictions = outputs[:, 0]
        loss = float(np.mean((predictions - labels) ** 2))
    else:
        predictions = outputs.argmax(1)
        highest = outputs.max(1, keepdims=True)
        normaliser = highest[:, 0] + np.log(np.exp(outputs - highest).sum(1))
        loss = float(np.mean(normaliser - outputs[np.arange(len(labels)), labels]))
    return {"loss": loss, **{name: _metric(name, labels, predictions) for name in info.metrics}}


def _metric(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if name in ("pearson", "spearman"):
        if len(set(predictions.tolist())) == 1 or len(set(labels.tolist())) == 1:
            return 0.0  # where NumPy says NaN
        pair = (predictions, labels) if name == "pearson" else (_ranks(predictions), _ranks(labels))
        return float(np.corrcoef(*pair)[0, 1])
    return float(
        {
            "accuracy": lambda: accuracy_score(labels, predictions),
            "f1": lambda: f1_score(labels, predictions, labels=[1], average="micro", zero_division=0),
            "macro_f1": lambda: f1_score(labels, predictions, average="macro", zero_division=0),
            "matthews": lambda: matthews_corrcoef(labels, predictions),
        }[name]()
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, ties at their mean rank."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def majority_rate(split: Split) -> float:
    """How often the most frequent label of a split is right."""
    labels = split.labels.tolist()
    return Counter(labels).most_common(1)[0][1] / len(labels)
