import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.config import ConfigError
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.distillation import Distillation
from pruneexp.tasks.regression import Regression


def outputs(*rows):
    model = nn.Identity()
    return model, torch.tensor(rows)


def classes(teacher, weight, temperature=2.0):
    task = Classification(metrics=("accuracy",), label_smoothing=0.0)
    return Distillation(task, teacher, teacher="dense", weight=weight, temperature=temperature)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, inputs):
        return self.logits


def test_loss_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    kl = (p * (p.log() - q.log())).sum()
    own = F.cross_entropy(student, torch.tensor([1]))
    loss = classes(Fixed(teacher), 0.95).loss(Fixed(student), {"inputs": torch.zeros(1), "labels": torch.tensor([1])})
    assert loss.item() == pytest.approx((0.05 * own + 0.95 * 4 * kl).item())


def test_a_student_that_agrees_has_no_distance():
    logits = torch.randn(5, 3)
    assert classes(Fixed(logits), 1.0).distance(logits, logits + 7.0).item() == pytest.approx(0, abs=1e-6)


def test_weight_zero_is_the_task_itself():
    student = Fixed(torch.randn(4, 3))
    batch = {"inputs": torch.zeros(4), "labels": torch.tensor([0, 1, 2, 0])}
    task = classes(Fixed(torch.randn(4, 3)), 0.0)
    assert torch.equal(task.loss(student, batch), task.task.loss(student, batch))


def test_regression_takes_the_squared_difference():
    task = Distillation(
        Regression(metrics=("pearson",)), Fixed(torch.tensor([[3.0]])), teacher="dense", weight=1.0, temperature=2.0
    )
    batch = {"inputs": torch.zeros(1), "labels": torch.tensor([0.0])}
    assert task.loss(Fixed(torch.tensor([[1.0]])), batch).item() == pytest.approx(4.0)


def test_the_teacher_gets_no_gradient():
    teacher = nn.Linear(2, 2)
    student = nn.Linear(2, 2)
    batch = {"inputs": torch.ones(1, 2), "labels": torch.tensor([0])}
    classes(teacher, 0.5).loss(student, batch).backward()
    assert teacher.weight.grad is None
    assert student.weight.grad is not None


@pytest.mark.parametrize("values", [{"weight": 1.5, "temperature": 1.0}, {"weight": 0.5, "temperature": 0.0}])
def test_impossible_values_are_refused(values):
    with pytest.raises(ValueError, match=r"distillation\."):
        classes(nn.Identity(), **values)


SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "logger=none", "device=cpu", "distillation=logits"]


def test_a_run_learns_from_the_dense_model_it_started_from(tmp_path):
    with_teacher, summary = experiment.run(compose([*SMALL, f"output_dir={tmp_path}"]))
    plain, _ = experiment.run(compose([*SMALL[:-1], f"output_dir={tmp_path}"]))
    assert with_teacher != plain
    assert summary["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)
    (dense,) = tmp_path.glob("default/dense-*")  # one dense run serves both
    named, _ = experiment.run(
        compose([*SMALL, f"output_dir={tmp_path}", f"distillation.teacher={dense}", f"dense={dense}"])
    )
    weights = [(folder / "model.safetensors").read_bytes() for folder in (with_teacher, named, plain)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["dense=none"], r"distillation\.teacher=dense: dense=none leaves no dense model"),
        (["dense=none", "distillation.teacher=nowhere"], "nowhere: no finished run"),
    ],
)
def test_a_teacher_that_is_not_there_is_named(options, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        experiment.run(compose([*SMALL, f"output_dir={tmp_path}", *options]))
    assert not list(tmp_path.iterdir())
