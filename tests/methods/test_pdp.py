"""PDP's equations against finite differences, closed forms and a few-line version of our own."""

import math

import pytest
import torch
from torch import nn

from pruneexp.budgets import Global, Uniform
from pruneexp.methods.base import Setting
from pruneexp.methods.pdp import PDP, SoftMask, Threshold
from pruneexp.patterns import NM, Unstructured
from pruneexp.schedules import Constant, Polynomial, Timeline


def soft_mask(weight, sparsity, tau, *, relative=False, differentiable=False, pattern=None):
    pattern = pattern or Unstructured()
    threshold = Threshold(relative=relative, differentiable=differentiable)
    threshold.set(pattern.units(weight.detach().abs()), sparsity, tau)
    return SoftMask(pattern, threshold, nn.Module())


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_forward_is_the_two_way_softmax():
    weight = torch.tensor([[0.1, -0.2], [0.3, -0.4]], dtype=torch.float64)
    mask = soft_mask(weight, 0.5, tau=0.01)
    t = 0.5 * (0.3 + 0.2)
    assert mask.threshold.squared.item() == pytest.approx(t**2)
    for w, effective in zip(weight.flatten().tolist(), mask(weight).flatten().tolist(), strict=True):
        z, m = torch.tensor([t**2 / 0.01, w**2 / 0.01], dtype=torch.float64).softmax(0).tolist()
        assert effective == pytest.approx(m * w)
        assert z + m == pytest.approx(1)


def test_the_mask_is_a_half_at_the_threshold_and_the_slope_is_the_closed_form():
    tau, t = 1e-4, 0.02
    weight = torch.tensor([[t, 0.0, 10 * t]], dtype=torch.float64, requires_grad=True)
    threshold = Threshold(relative=False, differentiable=False)
    threshold.squared = torch.tensor([[t**2]], dtype=torch.float64)
    threshold.temperature = torch.tensor([[tau]], dtype=torch.float64)
    effective = SoftMask(Unstructured(), threshold, nn.Module())(weight)
    effective.sum().backward()
    assert effective[0, 0].item() == pytest.approx(t / 2)
    assert weight.grad[0, 0].item() == pytest.approx(0.5 + t**2 / (2 * tau))  # 2.5
    assert weight.grad[0, 1].item() == pytest.approx(math.exp(-4) / (1 + math.exp(-4)))  # m(0) = 0.018
    assert weight.grad[0, 2].item() == pytest.approx(1)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("pattern", [Unstructured(), NM(n=2, m=4, axis="input", indivisible="dense")], ids=["1", "2:4"])
def test_gradient_agrees_with_finite_differences(pattern, relative):
    weight = randn(4, 8).requires_grad_()
    mask = soft_mask(weight, 0.5, tau=0.3, relative=relative, pattern=pattern)
    assert torch.autograd.gradcheck(mask, weight, eps=1e-6, atol=1e-7)


def test_gradient_at_the_threshold_itself():
    weight = torch.tensor([[0.5, -0.5, 0.5, 0.7, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    mask = soft_mask(weight, 0.5, tau=0.1)
    assert mask.threshold.squared.item() == pytest.approx(0.25)
    assert torch.autograd.gradcheck(mask, weight, eps=1e-6, atol=1e-7)


def test_gradient_through_the_threshold_reaches_the_two_weights_that_define_it():
    weight = torch.tensor([[0.1, -0.3, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)

    def by_hand(w):
        t = 0.5 * (w[0, 1].abs() + w[0, 2].abs())
        return torch.sigmoid((w**2 - t**2) / 0.1) * w

    mask = soft_mask(weight, 0.5, tau=0.1, differentiable=True)
    expected = torch.autograd.grad(by_hand(weight).square().sum(), weight)[0]
    got = torch.autograd.grad(mask(weight).square().sum(), weight)[0]
    assert torch.allclose(got, expected)
    without = torch.autograd.grad(soft_mask(weight, 0.5, tau=0.1)(weight).square().sum(), weight)[0]
    assert ((without - expected).abs() > 1e-9).tolist() == [[False, True, True, False]]


def test_a_relative_temperature_does_not_depend_on_the_scale_of_a_layer():
    weight = randn(6, 6)
    small = soft_mask(weight, 0.7, tau=0.1, relative=True)(weight)
    large = soft_mask(1000 * weight, 0.7, tau=0.1, relative=True)(1000 * weight)
    assert torch.allclose(1000 * small, large)


@pytest.mark.parametrize("relative", [False, True])
def test_a_layer_of_zeros_gives_no_nan(relative):
    weight = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    effective = soft_mask(weight, 0.5, tau=0.05, relative=relative)(weight)
    effective.sum().backward()
    assert torch.equal(effective, torch.zeros_like(weight))
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_that_is_sparse_already_gives_no_nan(dtype):
    weight = torch.tensor([[0.0, 0.0, 0.0, 5.0, -0.1, 30.0]], dtype=dtype, requires_grad=True)
    effective = soft_mask(weight, 0.3, tau=0.02, relative=True)(weight)  # t = 0: two of the zeros go
    effective.sum().backward()
    assert torch.equal(effective, weight)
    assert weight.grad.tolist() == [[0.5, 0.5, 0.5, 1.0, 1.0, 1.0]]


def test_all_equal_weights_have_a_mask_of_one_half():
    weight = torch.full((3, 4), 0.3, dtype=torch.float64)
    assert torch.allclose(soft_mask(weight, 0.5, tau=0.05)(weight), weight / 2)


def test_sparsity_zero_is_the_identity():
    weight = randn(5, 5)
    assert soft_mask(weight, 0.0, tau=0.1)(weight) is weight


def test_bfloat16_weights():
    weight = randn(16, 16).bfloat16().requires_grad_()
    effective = soft_mask(weight, 0.9, tau=0.05, relative=True)(weight)
    effective.sum().backward()
    assert effective.dtype == weight.grad.dtype == torch.bfloat16
    assert weight.grad.isfinite().all()


class Headline:
    headline = "accuracy"


def pdp(model, *, sparsity=0.5, steps=10, pattern=None, budget=None, schedule=None, **options):
    defaults = {"tau": 0.05, "tau_end": None, "tau_relative": True, "threshold_gradient": False, "harden_at": 1.0}
    method = PDP(
        sparsity=sparsity,
        pattern=pattern or Unstructured(),
        budget=budget or Global(),
        schedule=schedule or Constant(0.0),
        exclude=[],
        **{**defaults, "start_accuracy": None, "start_patience": 1, **options},
    )
    timeline = Timeline(steps_per_epoch=5, total_steps=steps)
    method.setup(model, Setting(task=Headline(), batches=[], timeline=timeline, seed=0))
    return method


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("budget", [Global(), Uniform()])
def test_finalize_leaves_exactly_the_rounded_count_of_zeros(sparsity, budget):
    model = linear()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    method = pdp(model, sparsity=sparsity, budget=budget)
    method.before_step(0)
    masks = method.finalize()
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * 900)
    assert set(model.state_dict()) == set(weights)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])  # finalize itself changes no weight; the caller masks


def test_finalize_leaves_exactly_n_of_every_m():
    model = linear()
    method = pdp(model, sparsity=0.75, pattern=NM(n=1, m=4, axis="input", indivisible="dense"))
    method.before_step(0)
    masks = method.finalize()
    assert set(masks) == {"0.weight"}  # 30 inputs are no multiple of 4
    assert torch.equal(masks["0.weight"].view(30, 5, 4).sum(-1), torch.ones(30, 5, dtype=torch.int64))


def test_hardened_keeps_the_weights_above_the_threshold():
    model = linear()
    method = pdp(model)
    method.before_step(0)
    with method.hardened():
        hard = model[0].weight.detach().clone()
    original = model[0].parametrizations.weight.original
    t = method.thresholds["0.weight"].squared.sqrt()
    assert torch.equal(hard, torch.where(original.abs() >= t, original, 0.0))
    assert not torch.equal(model[0].weight, hard)


def test_hardening_early_turns_to_hard_masks():
    model = linear()
    method = pdp(model, harden_at=0.5)
    assert [method.before_step(step) for step in range(5)] == [False] * 5
    assert method.before_step(5)
    assert method.masks
    assert model[0].weight is not None
    assert torch.equal(model[0].weight, model[0].parametrizations.weight.original)
    assert not method.before_step(6)


def test_masks_become_hard_only_once_the_schedule_is_at_its_target():
    method = pdp(linear(), harden_at=0.3, schedule=Polynomial(0.0, 0.8, 1.0), tau=0.4, tau_end=0.1)
    hardened = [method.before_step(step) for step in range(10)]
    assert hardened == [False] * 7 + [True, False, False]
    assert method.sparsity() == pytest.approx(0.5)


def test_pruning_starts_when_validation_was_good_for_long_enough():
    method = pdp(linear(), start_accuracy=0.5, start_patience=2)
    for step, accuracy in ((1, 0.6), (2, 0.4), (3, 0.5), (4, 0.7)):
        method.before_step(step)
        assert method.sparsity() == 0
        method.on_evaluation(step, {"accuracy": accuracy})
    method.before_step(5)
    assert method.sparsity() == pytest.approx(0.5)


def test_budgets_are_fixed_when_pruning_begins():
    model = linear()
    method = pdp(model)
    method.before_step(0)
    first = dict(method.final)
    with torch.no_grad():
        method.weights["0.weight"].mul_(100)
    method.before_step(1)
    assert method.final == first


def test_a_layer_of_one_weight_is_left_alone():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 200, bias=False))
    method = pdp(model, sparsity=0.9)
    method.before_step(0)
    weight = model[0].weight
    assert torch.equal(weight, method.weights["0.weight"])
    masks = method.finalize()
    assert masks["0.weight"].tolist() == [[True]]
    assert int((~masks["1.weight"]).sum()) == round(0.9 * 201)


def test_a_sparsity_of_0_999_leaves_the_thousandth_part():
    model = nn.Linear(100, 100, bias=False)
    method = pdp(model, sparsity=0.999)
    method.before_step(0)
    with method.hardened():
        assert int(model.weight.count_nonzero()) == 10
    largest = method.weights["weight"].abs().flatten().topk(10).indices.sort().values
    assert torch.equal(method.finalize()["weight"].flatten().nonzero().flatten(), largest)


def test_ties_at_the_threshold_still_give_the_exact_count():
    model = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.1, -0.5, 0.5, 0.5, -0.5, 0.5, 0.5, 0.5, 0.9, 0.0]).expand(10, 10))
    method = pdp(model, sparsity=0.53)
    method.before_step(0)
    assert method.thresholds["weight"].squared.item() == pytest.approx(0.25)
    assert model.weight.isfinite().all()
    assert int((~method.finalize()["weight"]).sum()) == 53


def test_under_autocast_the_mask_is_made_in_full_precision():
    model, inputs = nn.Linear(64, 32), torch.randn(8, 64)
    method = pdp(model, sparsity=0.8)
    method.before_step(0)
    exact = model.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(inputs)
        assert torch.equal(model.weight, exact)
        assert model.weight.dtype == torch.float32
    outputs.float().square().sum().backward()
    original = model.parametrizations.weight.original
    assert outputs.dtype == torch.bfloat16
    assert original.grad.dtype == torch.float32
    model.float()
    reference = torch.autograd.grad((inputs @ model.weight.T + model.bias).square().sum(), original)[0]
    assert torch.allclose(original.grad, reference, rtol=0.1, atol=0.1 * reference.abs().max())


def test_a_falling_temperature_moves_by_equal_factors():
    model = linear()
    method = pdp(model, tau=0.08, tau_end=0.02, steps=3)
    ratios = []
    for step in range(3):
        method.before_step(step)
        threshold = method.thresholds["0.weight"]
        ratios.append((threshold.temperature / threshold.squared).item())
    assert ratios == pytest.approx([0.08, 0.04, 0.02])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 0.0}, r"method\.tau=0\.0"),
        ({"tau_end": -1.0}, r"method\.tau_end=-1"),
        ({"harden_at": 0.0}, "harden_at=0"),
    ],
)
def test_impossible_values_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        pdp(linear(), **options)
