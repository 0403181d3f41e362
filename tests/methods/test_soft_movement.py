"""Soft movement pruning: threshold, penalty, and what is kept whatever happens."""

import pytest
import torch
from torch import nn

from pruneexp.building import build
from pruneexp.cli import compose
from pruneexp.config import ConfigError
from pruneexp.methods.base import Setting
from pruneexp.methods.soft_movement import SoftMovement
from pruneexp.patterns import NM, Block, Unstructured
from pruneexp.schedules import Polynomial, Timeline
from pruneexp.structured import Channel
from shared.small_models import linear


def soft_movement(model, pattern=None, batches=(), **options):
    options = {"threshold": 0.2, "penalty_weight": 6.0, "score_learning_rate": 0.1, "exclude": [], **options}
    schedule = Polynomial(begin=0.0, end=0.5, power=1.0)
    method = SoftMovement(pattern=pattern or Unstructured(), schedule=schedule, **options)
    method.setup(model, Setting(task=None, batches=batches, timeline=Timeline(1, 9), seed=0))
    return method


def set_probabilities(method, *rows, name="weight"):
    with torch.no_grad():
        method.scores[name].values.copy_(torch.tensor(rows).logit())


def test_forward_and_gradients_by_hand():
    model = linear([3.0, -1.0, 0.5, -2.0])
    method = soft_movement(model)
    set_probabilities(method, [0.1, 0.3, 0.9, 0.19])
    method.before_step(0)
    assert model.weight.tolist() == [[3.0, -1.0, 0.5, -2.0]]
    method.before_step(4)
    assert model.weight.tolist() == [[0.0, -1.0, 0.5, 0.0]]
    assert method.sparsity() == 0.5
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).backward()
    assert method.scores["weight"].values.grad.tolist() == [[3.0, -2.0, 1.5, -8.0]]
    assert method.weights["weight"].grad.tolist() == [[0.0, 2.0, 3.0, 0.0]]


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (2, 3.0), (4, 6.0), (8, 6.0)])
def test_the_penalty_is_lambda_times_the_mean_over_layers_and_grows_with_the_threshold(step, factor):
    model = nn.Sequential(linear([1.0, 1.0]), linear([1.0], [1.0], [1.0], [1.0]))
    method = soft_movement(model)
    set_probabilities(method, [0.5, 0.7], name="0.weight")
    set_probabilities(method, [0.2, 0.2, 0.4, 0.4], name="1.weight")
    method.before_step(step)
    penalty = method.penalty()
    assert penalty.item() == pytest.approx(factor * (0.6 + 0.3) / 2)
    penalty.backward()
    slope = 0.7 * 0.3 / 2 / 2  # of the sigmoid, over the units of the layer, over the layers
    assert method.scores["0.weight"].values.grad[0, 1].item() == pytest.approx(factor * slope)


def test_each_layer_keeps_half_a_percent_of_its_units():
    model = nn.Linear(20, 20, bias=False)
    method = soft_movement(model)
    scores = torch.arange(400.0) / 1000 - 9
    with torch.no_grad():
        method.scores["weight"].values.copy_(scores[None])
    method.before_step(8)
    assert method.scores["weight"].keep.nonzero()[:, 1].tolist() == [397, 398, 399]  # int(0.005 x 400) + 1
    assert method.sparsity() == 397 / 400
    assert int(method.finalize()["weight"].sum()) == 3


def test_a_block_has_one_score():
    model = linear([3.0, -1.0, 0.5, -2.0], [1.0, 1.0, 1.0, 1.0])
    method = soft_movement(model, pattern=Block(rows=2, columns=2))
    set_probabilities(method, [0.1, 0.5])
    method.before_step(8)
    assert model.weight.tolist() == [[0.0, 0.0, 0.5, -2.0], [0.0, 0.0, 1.0, 1.0]]
    assert method.metrics() == {"movement/threshold": 0.2, "movement/mean_sigmoid": pytest.approx(0.3)}


def test_a_channel_has_one_score_whatever_its_tensors():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()
    images = torch.randn(2, 2, 5, 5)
    method = soft_movement(model, Channel(norm="l2", gate="norm"), [{"inputs": images}], exclude=["classifier"])
    (name,) = method.groups
    set_probabilities(method, [0.1, 0.3, 0.9, 0.19], name=name)
    method.before_step(4)
    assert not model[1](model[0](images))[:, [0, 3]].any()
    method.finalize()
    assert [bool(mask) for mask in method.masks["0.weight"].flatten()] == [False, True, True, False]
    assert [bool(mask) for mask in method.masks["1.bias"]] == [False, True, True, False]


def test_more_penalty_is_more_sparsity():
    sparsities = []
    for weight in (0.0, 1.0, 40.0):
        torch.manual_seed(0)
        model, inputs = nn.Linear(10, 4), torch.randn(64, 10)
        wanted = inputs @ torch.randn(10, 4)
        method = soft_movement(model, penalty_weight=weight, threshold=0.3)
        method.timeline = Timeline(1, 200)
        groups = [{"params": list(method.weights.values()), "lr": 0.02}, *method.param_groups()]
        optimizer = torch.optim.Adam(groups)
        for step in range(200):
            method.before_step(step)
            ((model(inputs) - wanted).square().mean() + method.penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()
        sparsities.append(method.sparsity())
    assert sparsities[0] < sparsities[1] < sparsities[2]


def test_the_config_takes_no_sparsity_and_no_pattern_that_has_one():
    with pytest.raises(ConfigError, match="method=soft_movement has no target, it finds its sparsity itself"):
        compose(["method=soft_movement", "sparsity=0.9"])
    method = build(compose(["method=soft_movement", "pattern=nm"])["method"], "method")
    with pytest.raises(ValueError, match="pattern=NM: has a sparsity of its own"):
        method.setup(linear([1.0, 2.0]), Setting(task=None, batches=[], timeline=Timeline(1, 9), seed=0))
    assert isinstance(method.pattern, NM)


@pytest.mark.parametrize(
    "option", [{"threshold": 0.0}, {"threshold": 1.0}, {"penalty_weight": -1.0}, {"score_learning_rate": 0.0}], ids=str
)
def test_impossible_values_are_named(option):
    ((key, value),) = option.items()
    with pytest.raises(ValueError, match=rf"method\.{key}={value}: must"):
        soft_movement(linear([1.0, 2.0]), **option)
