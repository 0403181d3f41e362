"""Metrics of predictions against labels. All are better when larger, fractions of 1, and never divide by zero.

Predictions and labels have the shape (examples,): int64 classes, or floats for the correlations. A prediction of -1
stands for none (see `Classification.score`) and is wrong.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Metric = Callable[[Tensor, Tensor], float]


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """The fraction of predictions that are right."""
    return (predictions == labels).double().mean().item()


def f1(predictions: Tensor, labels: Tensor) -> float:
    """The F1 score of class 1, 2 TP / (2 TP + FP + FN); 0 if that class is neither predicted nor there."""
    return _f1_of(1, predictions, labels)


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """The mean of the F1 scores of the classes that occur in the labels or the predictions."""
    classes = torch.cat([labels, predictions]).unique()
    scores = [_f1_of(number, predictions, labels) for number in classes.tolist() if number >= 0]
    return sum(scores) / len(scores)


def _f1_of(number: int, predictions: Tensor, labels: Tensor) -> float:
    hits = ((predictions == number) & (labels == number)).sum().item()
    found = (predictions == number).sum().item() + (labels == number).sum().item()
    return 2 * hits / found if found else 0.0


def matthews(predictions: Tensor, labels: Tensor) -> float:
    """The Matthews correlation in [-1, 1]; 0 if all predictions or all labels are of one class.

    For any number of classes, the R_K of Gorodkin 2004 (Computational Biology and Chemistry 28): the correlation of the
    one-hot vectors, (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)), with s examples, c of them
    right, p_k predicted to be and t_k truly of class k.
    """
    _, codes = torch.cat([predictions, labels]).unique(return_inverse=True)
    predicted, true = (part.bincount(minlength=int(codes.max()) + 1).double() for part in codes.chunk(2))
    total, right = float(len(labels)), (predictions == labels).double().sum()
    spread = (total**2 - predicted.square().sum()) * (total**2 - true.square().sum())
    return ((right * total - predicted @ true) / spread.sqrt()).item() if spread > 0 else 0.0


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """The linear correlation in [-1, 1]; 0 if either side is constant, nan if a prediction is not finite."""
    predictions, labels = predictions.double(), labels.double()
    if not predictions.isfinite().all():
        return float("nan")
    if (predictions == predictions[0]).all() or (labels == labels[0]).all():
        return 0.0  # not left to the division: rounding can make the deviations of a constant differ from 0
    x, y = predictions - predictions.mean(), labels - labels.mean()
    return ((x @ y) / (x.norm() * y.norm())).clamp(-1, 1).item()


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """The correlation of the ranks, ties at their mean rank; 0 and nan as for `pearson`."""
    if not predictions.isfinite().all():
        return float("nan")
    return pearson(_ranks(predictions), _ranks(labels))


def _ranks(values: Tensor) -> Tensor:
    _, place, ties = values.unique(return_inverse=True, return_counts=True)
    last = ties.cumsum(0).double()  # ranks first, ..., last are shared by the tied values
    return (last - (ties - 1) / 2)[place]


def majority_rate(labels: Tensor) -> float:
    """The accuracy of always predicting the most frequent class of `labels`, int64 (examples,)."""
    return labels.bincount().max().item() / len(labels)


CLASSIFICATION: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "macro_f1": macro_f1, "matthews": matthews}
REGRESSION: dict[str, Metric] = {"pearson": pearson, "spearman": spearman}


def check_metrics(names: tuple[str, ...], *, regression: bool) -> None:
    """Returns if there are such metrics for classes, or for values.

    Raises:
        ValueError: there is one of another name, or none at all.
    """
    known = REGRESSION if regression else CLASSIFICATION
    for name in names or [""]:
        if name not in known:
            what = "values" if regression else "classes"
            raise ValueError(f"dataset.metrics={list(names)}: for {what} give one or more of {', '.join(known)}")
