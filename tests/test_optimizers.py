import copy
import math

import pytest
import torch
from torch import nn

from pruneexp.optimizers import SGD, AdamW

RECIPE = {
    "learning_rate": 0.1,
    "weight_decay": 0.01,
    "decay_norms_and_biases": False,
    "schedule": "cosine",
    "warmup": 0.0,
    "milestones": [],
    "gamma": 0.1,
    "clip_norm": None,
}


def sgd(**changes):
    return SGD(momentum=0.9, nesterov=False, **{**RECIPE, **changes})


def test_cosine_by_hand():
    recipe = sgd()
    assert [recipe.factor(step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


def test_linear_and_constant():
    assert [sgd(schedule="linear").factor(step, 10) for step in (0, 5, 9)] == pytest.approx([1, 0.5, 0.1])
    assert sgd(schedule="constant").factor(9, 10) == 1


def test_milestones():
    recipe = sgd(schedule="step", milestones=[0.5, 0.75])
    assert [recipe.factor(step, 100) for step in (49, 50, 75)] == pytest.approx([1, 0.1, 0.01])


def test_warm_up_rises_to_the_peak():
    recipe = sgd(warmup=0.1, schedule="constant")
    factors = [recipe.factor(step, 100) for step in range(12)]
    assert factors == sorted(factors)
    assert 0 < factors[0] < factors[9] < 1 == factors[10]


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    groups = sgd().build(model).param_groups
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decayed == {id(model[0].weight), id(model[3].weight)}
    everything = sgd(decay_norms_and_biases=True).build(model).param_groups
    assert [group["weight_decay"] for group in everything] == [0.01]


def test_a_methods_own_parameters_have_their_own_rate_and_no_decay():
    model = nn.Linear(2, 2)
    gate = nn.Parameter(torch.zeros(2))
    recipe = AdamW(betas=[0.9, 0.999], epsilon=1e-8, **RECIPE)
    optimizer = recipe.build(model, [{"params": [gate], "lr": 1.0, "maximize": True}])
    recipe.set_rate_(optimizer, 50, 100)
    own = optimizer.param_groups[-1]
    assert (own["lr"], own["weight_decay"], own["maximize"]) == (pytest.approx(0.5), 0.0, True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi / 2)))


def test_another_peak_scales_the_rate_of_the_weights_and_not_constant_ones():
    weight, gate = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))
    model = nn.ParameterDict({"weight": weight})
    recipe = sgd(schedule="linear", warmup=0.0)
    optimizer = recipe.build(model, [{"params": [gate], "lr": 0.7, "scheduled": False}])
    recipe.set_rate_(optimizer, 1, 4, peak=0.04)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03, 0.7])


def joined():
    """A weight under SGD, a gate under Adam at a constant rate, and a multiplier that ascends."""
    model, gate, multiplier = nn.Linear(1, 1, bias=False), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    groups = [
        {"params": [gate], "lr": 0.5, "adam": True, "scheduled": False},
        {"params": [multiplier], "lr": 0.25, "adam": True, "scheduled": False, "maximize": True},
    ]
    recipe = sgd(schedule="linear", weight_decay=0.0)
    return recipe, recipe.build(model, groups), [model.weight, gate, multiplier]


def steps(recipe, optimizer, parameters, which):
    for step in which:
        recipe.set_rate_(optimizer, step, 10)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3 * (step + 1))
        optimizer.step()
        optimizer.zero_grad()


def test_parameters_may_have_adam_at_a_constant_rate_whatever_the_recipe_is():
    recipe, optimizer, parameters = joined()
    start = parameters[0].item()
    steps(recipe, optimizer, parameters, [5])
    weight, gate, multiplier = parameters
    assert weight.item() == pytest.approx(start - 0.1 * 0.5 * 6e-3)  # half of the peak rate at step 5 of 10
    assert gate.tolist() == pytest.approx([-0.5] * 2, rel=1e-4)  # Adam's first step is the rate, against the gradient
    assert multiplier.item() == pytest.approx(0.25, rel=1e-4)  # and along it
    assert all(parameter.grad is None for parameter in parameters)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5, 0.25]


def test_joined_optimizers_resume_where_they_stood():
    recipe, optimizer, steady = joined()
    first = [parameter.detach().clone() for parameter in steady]
    steps(recipe, optimizer, steady, range(3))
    saved, values = copy.deepcopy(optimizer.state_dict()), [parameter.detach().clone() for parameter in steady]
    steps(recipe, optimizer, steady, range(3, 6))
    recipe, optimizer, resumed = joined()
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for parameter, value in zip(resumed, values, strict=True):
            parameter.copy_(value)
    steps(recipe, optimizer, resumed, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(steady, resumed, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(steady, first, strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate=0.0"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay=-1.0"),
        ({"schedule": "cosin"}, "optimizer.schedule=cosin"),
        ({"warmup": 1.0}, "optimizer.warmup=1.0"),
        ({"milestones": [2.0]}, "optimizer.milestones="),
        ({"clip_norm": 0.0}, "optimizer.clip_norm=0.0"),
    ],
)
def test_impossible_values_are_named(changes, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.").replace("[", r"\[")):
        sgd(**changes)


def test_impossible_values_of_the_optimizers_themselves():
    with pytest.raises(ValueError, match=r"optimizer\.momentum=1"):
        SGD(momentum=1.0, nesterov=False, **RECIPE)
    with pytest.raises(ValueError, match=r"optimizer\.betas="):
        AdamW(betas=[0.9], epsilon=1e-8, **RECIPE)
