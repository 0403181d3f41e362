"""The loss over several tasks, and what it trains."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruneexp.datasets.base import TARGET
from pruneexp.datasets.batches import micro_batches
from pruneexp.models.heads import Heads
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.distillation import Distillation
from pruneexp.tasks.multi_task import MultiTask
from pruneexp.tasks.regression import Regression

WEIGHTS = {TARGET: 2.0, "values": 0.5}


def network(outputs):
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))


def data(rows, labels, seed):
    inputs = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return {"inputs": inputs, "labels": torch.tensor(labels)}


TARGETS = data(4, [0, 1, 1, 0], seed=1)
VALUES = data(5, [0.5, 2.0, 1.0, 4.0, 3.0], seed=2)
BOTH = {**TARGETS, "auxiliary": {"values": VALUES}}


@pytest.fixture
def task():
    torch.manual_seed(0)
    classes = Classification(metrics=("accuracy",), label_smoothing=0.0)
    heads = Heads(network(2), {"values": network(1)})
    return MultiTask(classes, {"values": Regression(metrics=("pearson",))}, weights=WEIGHTS, heads=heads)


def by_hand(task):
    """The two losses, computed from the parameters alone."""
    body, head, other = task.heads.network[0], task.heads.network[2], task.heads.own["/values"].get_submodule("/2")
    logits = F.linear(F.linear(TARGETS["inputs"], body.weight, body.bias).tanh(), head.weight, head.bias)
    values = F.linear(F.linear(VALUES["inputs"], body.weight, body.bias).tanh(), other.weight, other.bias)
    return F.cross_entropy(logits, TARGETS["labels"]), (values.squeeze(1) - VALUES["labels"]).square().mean()


def gradients(loss, task):
    found = torch.autograd.grad(loss, list(task.heads.parameters()), allow_unused=True)
    return {name: tensor for (name, _), tensor in zip(task.heads.named_parameters(), found, strict=True)}


@pytest.mark.parametrize("through", ["network", "module"])
def test_the_loss_is_the_weighted_sum_of_a_classification_and_a_regression(through, task):
    model = task.heads.network if through == "network" else task.module(task.heads.network)
    target, values = by_hand(task)
    assert task.loss(model, BOTH).item() == pytest.approx((2 * target + 0.5 * values).item(), rel=1e-6)


def test_each_head_learns_from_its_own_loss_and_the_body_from_both(task):
    target, values = by_hand(task)
    wanted = (gradients(2 * target, task), gradients(0.5 * values, task))
    found = gradients(task.loss(task.heads, BOTH), task)
    assert torch.allclose(found["network.2.weight"], wanted[0]["network.2.weight"], atol=1e-7)
    assert torch.allclose(found["own./values./2.weight"], wanted[1]["own./values./2.weight"], atol=1e-7)
    both = wanted[0]["network.0.weight"] + wanted[1]["network.0.weight"]
    assert torch.allclose(found["network.0.weight"], both, atol=1e-6)
    assert wanted[0]["own./values./2.weight"] is None
    assert wanted[1]["network.2.weight"] is None


def test_a_batch_of_one_task_trains_that_task_alone(task):
    _, values = by_hand(task)
    loss = task.loss(task.heads, {**VALUES, "task": "values"})
    assert loss.item() == pytest.approx(0.5 * values.item(), rel=1e-6)
    assert gradients(loss, task)["network.2.weight"] is None


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_of_uneven_sizes_add_up_to_the_batch(parts, task):
    pieces = list(micro_batches(BOTH, parts))
    assert sum(len(piece["auxiliary"]["values"]["labels"]) for piece in pieces) == 5
    total = sum(task.loss(task.heads, piece) * (len(piece["labels"]) / 4) for piece in pieces)
    assert total.item() == pytest.approx(task.loss(task.heads, BOTH).item(), rel=1e-6)
    assert BOTH["auxiliary"] == {"values": VALUES}


def test_a_forward_pass_can_tell_which_task_it_serves(task):
    seen = []
    task.heads.network.register_forward_pre_hook(lambda *_: seen.append(task.current))
    task.loss(task.heads, BOTH)
    with task.serving("values") as served:
        served.evaluate(task.heads.network, [VALUES])
    task.evaluate(task.heads.network, [TARGETS])
    assert seen == ["target", "values", "values", "target"]
    assert task.names == ("target", "values")
    assert Regression(metrics=("pearson",)).names == ("target",)


def test_the_metrics_are_the_targets(task):
    metrics = task.evaluate(task.heads.network, [TARGETS])
    assert task.headline == "accuracy"
    assert metrics.keys() == {"loss", "accuracy"}
    assert metrics["loss"] == pytest.approx(by_hand(task)[0].item(), rel=1e-6)


def test_metrics_of_an_auxiliary_task_come_from_its_own_head(task):
    with task.serving("values") as served:
        metrics = served.evaluate(task.heads.network, [VALUES])
    assert metrics["loss"] == pytest.approx(by_hand(task)[1].item(), rel=1e-6)


def test_a_teacher_teaches_the_target_alone(task):
    teacher = network(2)
    task.tasks[TARGET] = Distillation(task.tasks[TARGET], teacher, teacher="dense", weight=0.25, temperature=2.0)
    target, values = by_hand(task)
    distance = task.tasks[TARGET].distance(task.heads.network(TARGETS["inputs"]), teacher(TARGETS["inputs"]))
    wanted = 2 * (0.75 * target + 0.25 * distance) + 0.5 * values
    assert task.loss(task.heads, BOTH).item() == pytest.approx(wanted.item(), rel=1e-6)
