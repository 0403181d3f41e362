import math

import pytest
import torch
from torch import nn

from pruneexp.methods.base import Setting
from pruneexp.methods.str import STR, SoftThreshold
from pruneexp.schedules import Timeline


def sigmoid(s):
    return 1 / (1 + math.exp(-s))


def threshold_of(value):
    """The s whose threshold is `value`."""
    return math.log(value / (1 - value))


def str_on(model, **options):
    options = {"exclude": [], "s_init": -5.0, "per_layer": True, "learning_rate": 0.1, "weight_decay": 0.0} | options
    method = STR(**options)
    method.setup(model, Setting(task=None, batches=[], timeline=Timeline(1, 10), seed=0))
    return method


def linear(*weights):
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def test_weights_and_gradients_by_hand():
    model = linear(3.0, -1.0, 0.25, -0.5)
    method = str_on(model, s_init=0.0)  # a threshold of 0.5
    assert model.weight.tolist() == [[2.5, -0.5, 0.0, 0.0]]
    assert method.sparsity() == 0.5
    assert method.metrics() == {"str/threshold": 0.5}
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).backward()  # dL/dw_hat is the input
    assert method.weights["weight"].grad.tolist() == [[1.0, 2.0, 0.0, 0.0]]
    assert method.thresholds[0].grad.item() == pytest.approx(-0.25 * (1.0 - 2.0))  # g'(0) = 1/4


def test_gradient_of_s_in_closed_form():
    weight = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = nn.Parameter(torch.tensor(-0.3, dtype=torch.float64))
    (SoftThreshold(s)(weight) * upstream).sum().backward()
    g = sigmoid(-0.3)
    wanted = -g * (1 - g) * sum(math.copysign(u, w * u) for w, u in zip(weight, upstream, strict=True) if abs(w) > g)
    assert s.grad.item() == pytest.approx(wanted, rel=1e-12)


def test_gradients_agree_with_finite_differences():
    weight = torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(5, 6).requires_grad_()  # none is at the threshold
    soft = SoftThreshold(nn.Parameter(torch.tensor(-1.0, dtype=torch.float64)))
    assert torch.autograd.gradcheck(lambda w, s: torch.func.functional_call(soft, {"s": s}, w), (weight, soft.s))


def test_finalize_keeps_the_output_and_the_shrunk_weights():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 2))
    method = str_on(model, s_init=threshold_of(0.1))
    inputs = torch.randn(2, 3, 4, 4)
    before, original = model(inputs), method.weights["0.weight"].detach().clone()
    masks = method.finalize()
    assert torch.equal(model(inputs), before)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(masks["0.weight"], original.abs() > 0.1)
    assert not model[0].weight[~masks["0.weight"]].any()
    kept = masks["0.weight"]
    assert torch.allclose(model[0].weight[kept].abs(), original[kept].abs() - 0.1)


def test_one_threshold_for_all_layers_or_one_for_each():
    counts = {}
    for per_layer in (True, False):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        method = str_on(model, per_layer=per_layer)
        (group,) = method.param_groups()
        model(torch.ones(1, 4)).sum().backward()
        assert all(s.grad is not None for s in group["params"])
        counts[per_layer] = len({id(p) for p in model.parameters() if p.ndim == 0}), len(group["params"])
    assert counts == {True: (2, 2), False: (1, 1)}


def test_weight_decay_of_s_raises_the_threshold():
    model = linear(1.0, 0.3)
    method = str_on(model, weight_decay=0.5)
    optimizer = torch.optim.SGD(method.param_groups())
    method.thresholds[0].grad = torch.zeros(())
    optimizer.step()
    assert method.thresholds[0].item() == pytest.approx(-5.0 * (1 - 0.1 * 0.5))


def test_what_is_excluded_has_no_threshold():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert set(str_on(model, exclude=["1.*"]).soft_thresholds) == {"0.weight"}


@pytest.mark.parametrize(("s_init", "words"), [(20.0, "no weight is left in weight"), (-100.0, "nothing was pruned")])
def test_an_emptied_layer_and_a_run_that_pruned_nothing_are_reported(s_init, words, caplog):
    str_on(linear(0.5, -0.25), s_init=s_init).finalize()
    assert words in caplog.text


@pytest.mark.parametrize(("option", "value"), [("learning_rate", 0.0), ("weight_decay", -1.0)])
def test_impossible_values_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"method\.{option}={value}"):
        str_on(nn.Linear(2, 1), **{option: value})
