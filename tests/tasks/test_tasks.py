"""Losses, scores and evaluation of tasks."""

import math

import pytest
import torch
from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.tasks.base import predict
from pruneexp.tasks.build import task_for
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.regression import Regression

LOGITS = torch.tensor([[2.5, 0.0], [0.0, 1.0], [3.0, 0.0]])
LABELS = torch.tensor([0, 1, 1])


class Echo(nn.Module):
    """Returns its inputs; counts the batches it saw in either mode."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, inputs):
        self.modes.append(self.training)
        return inputs


def info(**changes):
    return DataInfo(**({"kind": "text", "num_outputs": 2, "metrics": ("accuracy", "f1")} | changes))


def test_cross_entropy_by_hand():
    task = Classification(metrics=("accuracy",), label_smoothing=0.0)
    wanted = (math.log1p(math.exp(-2.5)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 3
    assert task.loss(Echo(), {"inputs": LOGITS, "labels": LABELS}).item() == pytest.approx(wanted, rel=1e-6)
    assert task.score(LOGITS, LABELS) == pytest.approx({"loss": wanted, "accuracy": 2 / 3})


def test_label_smoothing_is_in_the_loss_only():
    plain, smooth = (Classification(metrics=("accuracy",), label_smoothing=value) for value in (0.0, 0.2))
    log_p = LOGITS.log_softmax(1)
    wanted = -(0.9 * log_p[range(3), LABELS] + 0.1 * log_p[range(3), 1 - LABELS]).mean()  # 0.2 shared by two classes
    assert smooth.loss(Echo(), {"inputs": LOGITS, "labels": LABELS}).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert smooth.score(LOGITS, LABELS) == plain.score(LOGITS, LABELS)


def test_squared_error_by_hand():
    task = Regression(metrics=("pearson", "spearman"))
    outputs, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 3.0, 2.0])
    assert task.loss(Echo(), {"inputs": outputs, "labels": labels}).item() == pytest.approx(5 / 3)
    scores = task.score(outputs, labels)
    assert scores["loss"] == pytest.approx(5 / 3)
    assert scores["spearman"] == pytest.approx(0.5)
    assert list(scores) == ["loss", "pearson", "spearman"]


def test_gradients_reach_the_model_in_half_precision():
    model = nn.Linear(3, 1).bfloat16()
    batch = {"inputs": torch.ones(2, 3, dtype=torch.bfloat16), "labels": torch.tensor([1.0, 2.0])}
    loss = Regression(metrics=("pearson",)).loss(model, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert model.weight.grad.abs().sum() > 0


def test_evaluate_joins_batches_and_drops_what_is_repeated():
    model, task = Echo().train(), Classification(metrics=("accuracy",), label_smoothing=0.0)
    batches = [
        {"inputs": LOGITS[:2], "labels": LABELS[:2], "count": 2},
        {"inputs": LOGITS[[2, 2]], "labels": LABELS[[2, 2]], "count": 1},
    ]
    assert task.evaluate(model, batches) == task.score(LOGITS, LABELS)
    assert model.modes == [False, False]
    assert model.training
    task.evaluate(model.eval(), batches)
    assert not model.training


def test_evaluate_gathers_before_it_drops():
    """Two processes with a row each; the second one's last row repeats."""
    others = iter([LOGITS[1:2], LABELS[1:2], LOGITS[2:3], LABELS[2:3]])
    mine = [
        {"inputs": LOGITS[0:1], "labels": LABELS[0:1], "count": 2},
        {"inputs": LOGITS[2:3], "labels": LABELS[2:3], "count": 1},
    ]
    task = Classification(metrics=("accuracy",), label_smoothing=0.0)
    scores = task.evaluate(Echo(), mine, gather=lambda rows: torch.cat([rows, next(others)]))
    assert scores == task.score(LOGITS, LABELS)


def test_predict_takes_images_token_dicts_and_output_objects():
    class Output:
        logits = LOGITS

    assert torch.equal(predict(Echo(), LOGITS), LOGITS)
    assert torch.equal(predict(Echo(), {"inputs": LOGITS}), LOGITS)
    assert torch.equal(predict(lambda **_: Output(), {"input_ids": LABELS}), LOGITS)


def test_logits_that_are_not_numbers_predict_nothing():
    task = Classification(metrics=("accuracy", "f1", "macro_f1", "matthews"), label_smoothing=0.0)
    scores = task.score(torch.full((4, 2), math.nan), torch.tensor([0, 0, 0, 1]))
    assert math.isnan(scores.pop("loss"))
    assert scores == {"accuracy": 0.0, "f1": 0.0, "macro_f1": 0.0, "matthews": 0.0}
    scores = task.score(torch.tensor([[math.inf, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert scores["accuracy"] == 1.0
    scores = Regression(metrics=("pearson",)).score(torch.full((4, 1), math.nan), torch.arange(4.0))
    assert math.isnan(scores["loss"]) and math.isnan(scores["pearson"])


def test_task_for():
    task = task_for(info(), label_smoothing=0.1)
    assert isinstance(task, Classification)
    assert (task.headline, task.label_smoothing) == ("accuracy", 0.1)
    task = task_for(info(num_outputs=1, metrics=("pearson", "spearman"), regression=True), label_smoothing=0.0)
    assert isinstance(task, Regression)
    assert task.headline == "pearson"


@pytest.mark.parametrize(
    ("changes", "label_smoothing", "message"),
    [
        ({"num_outputs": 3}, 0.0, r"dataset.metrics=\['accuracy', 'f1'\]: f1 is for two classes, not 3; take macro_f1"),
        ({"metrics": ("pearson",)}, 0.0, r"dataset.metrics=\['pearson'\]: for classes give one or more of accuracy"),
        ({"metrics": ()}, 0.0, r"dataset.metrics=\[\]: for classes give one or more"),
        ({"regression": True}, 0.0, r"for values give one or more of pearson, spearman"),
        ({"regression": True, "metrics": ("pearson",)}, 0.1, r"label_smoothing=0.1: the labels are values"),
        ({}, 1.0, r"label_smoothing=1.0: give a number"),
    ],
)
def test_tasks_that_cannot_be(changes, label_smoothing, message):
    with pytest.raises(ValueError, match=message):
        task_for(info(**changes), label_smoothing=label_smoothing)
