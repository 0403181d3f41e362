"""The task that fits a dataset."""

from pruneexp.datasets.base import DataInfo
from pruneexp.tasks.base import Task
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.regression import Regression


def task_for(info: DataInfo, *, label_smoothing: float) -> Task:
    """The task for data of this form. label_smoothing: of the classes, in [0, 1).

    Raises:
        ValueError: the metrics do not fit the data, or values are to be smoothed.
    """
    if info.regression:
        if label_smoothing:
            raise ValueError(f"label_smoothing={label_smoothing}: the labels are values, not classes; give 0")
        return Regression(metrics=info.metrics)
    if "f1" in info.metrics and info.num_outputs != 2:
        raise ValueError(
            f"dataset.metrics={list(info.metrics)}: f1 is for two classes, not {info.num_outputs}; take macro_f1"
        )
    return Classification(metrics=info.metrics, label_smoothing=label_smoothing)
