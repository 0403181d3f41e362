"""The fused soft mask against the formula written out, in all its forms: compiled, in blocks, whole tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneexp import soft_mask
from pruneexp.cpu_kernels import cpu_kernels
from pruneexp.soft_mask import soft_masked

FORMS = ("compiled", "blocks", "whole")  # "whole" is what a GPU and torch.compile see


def use(form, monkeypatch, block=5):
    monkeypatch.setattr(soft_mask, "BLOCK", block)
    if form == "whole":
        monkeypatch.setattr(soft_mask, "_eager_on_cpu", lambda tensor: False)
    if form == "compiled" and cpu_kernels() is None:
        pytest.skip("no C compiler")
    if form == "blocks":
        monkeypatch.setattr(soft_mask, "cpu_kernels", lambda: None)


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    use(request.param, monkeypatch)
    return request.param


def naive(weight, t, tau):
    """m(w) w as PDP's paper writes it, a softmax over two, for autograd."""
    pair = torch.stack([weight.square(), torch.full_like(weight, t).square()]) / tau
    return pair.softmax(dim=0)[0] * weight


def fused(weight, t, tau):
    t, tau = (torch.tensor([[value]], dtype=weight.dtype) for value in (t, tau))
    return soft_masked(weight, t.square(), tau)


def output_and_gradient(function, weight, t, tau, gradient=None):
    weight = weight.detach().requires_grad_()  # keeps the strides
    effective = function(weight, t, tau)
    effective.backward(torch.ones_like(effective) if gradient is None else gradient)
    return effective.detach(), weight.grad


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_values_and_slopes_by_hand(form):
    effective, slope = output_and_gradient(fused, torch.tensor([0.5, -0.5, 0.0, 2.0], dtype=torch.float64), 0.5, 0.1)
    assert effective.tolist() == pytest.approx([0.25, -0.25, 0.0, 2.0])
    at_threshold = 0.5 * (1 + 2 * 0.25 / 0.1 * 0.5)  # m (1 + (2 w^2 / tau) (1 - m)) with m = 1/2
    assert slope.tolist() == pytest.approx([at_threshold, at_threshold, 1 / (1 + math.exp(2.5)), 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.03, 1.0, 7.0])
def test_equal_to_the_formula_to_rounding_wherever_the_mask_is(form, dtype, t):
    """From m = 1e-45 over the threshold to m = 1: the steps of x = (w^2 - t^2) / tau are 0.01."""
    tau = t**2 / 110
    x = torch.arange(-109.9, 60, 0.01, dtype=torch.float64)
    check_against_float64((t**2 + tau * x).sqrt().to(dtype), t, tau, form)


def test_equal_to_the_formula_at_every_float_around_the_threshold(form, monkeypatch):
    use(form, monkeypatch, block=1000)
    t = torch.tensor(0.0421)
    neighbours = (t.view(torch.int32) + torch.arange(-20_000, 20_000, dtype=torch.int32)).view(torch.float32)
    check_against_float64(torch.cat([neighbours, -neighbours]), t.item(), 0.02 * t.item() ** 2, form)


def check_against_float64(weight, t, tau, form):
    """Both results of `weight`'s type, and those of the formula in float64 from the same numbers.

    x = w^2 / tau - t^2 / tau has an error of a few units in the last place of its two terms, and so has ln m.
    """
    got, got_slope = output_and_gradient(fused, weight, t, tau)
    t_squared = torch.tensor(t, dtype=weight.dtype).square().double()
    w, tau = weight.double(), torch.tensor(tau, dtype=weight.dtype).double()
    x = (w.square() - t_squared) / tau
    mask, rest = x.sigmoid(), (-x).sigmoid()
    slope = mask * (1 + 2 * w.square() / tau * rest)
    finfo = torch.finfo(weight.dtype)
    relative = 4 * finfo.eps * (1 + (w.square() + t_squared) / tau)
    least = finfo.tiny * (1 + w.abs()) if form == "compiled" else finfo.tiny  # compiled masks below tiny are 0
    assert ((got - mask * w).abs() <= relative * (mask * w).abs() + least).all()
    # 1 - m is rounded where m is near 1, and comes multiplied by 2 w^2 / tau.
    assert ((got_slope - slope).abs() <= relative * (slope + mask) + 200 * finfo.tiny).all()


def layouts():
    """Weights of shape (6, 5, 4, 3) in several layouts."""
    dense = randn(6, 5, 4, 3)
    return {
        "contiguous": dense,
        "channels last": dense.contiguous(memory_format=torch.channels_last),
        "permuted": randn(4, 3, 6, 5).permute(2, 3, 0, 1),
        "not dense": randn(6, 10, 4, 3)[:, ::2],
        "expanded": randn(6, 1, 4, 3).expand(6, 5, 4, 3),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_gradient", layouts())
@pytest.mark.parametrize("of_weight", layouts())
def test_any_memory_layout(form, of_weight, of_gradient, dtype):
    weight, gradient = layouts()[of_weight].to(dtype), layouts()[of_gradient].to(dtype)
    for got, want in zip(
        output_and_gradient(fused, weight, 0.7, 0.2, gradient),
        output_and_gradient(naive, weight.contiguous(), 0.7, 0.2, gradient.contiguous()),
        strict=True,
    ):
        assert torch.allclose(got, want, rtol=100 * torch.finfo(dtype).eps)


def test_the_result_keeps_the_layout_of_a_dense_weight(form):
    for name in ("contiguous", "channels last", "permuted"):
        weight = layouts()[name]
        assert fused(weight, 0.7, 0.2).stride() == weight.stride()


@pytest.mark.parametrize("name", ["contiguous", "channels last", "not dense"])
def test_gradient_agrees_with_finite_differences(form, name):
    weight = layouts()[name].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: fused(w, 0.7, 0.2), weight, eps=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    block=st.integers(1, 40),
    shape=st.lists(st.integers(0, 5), max_size=4),
    t=st.floats(0, 3),
    sharpness=st.floats(0.1, 200),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equal_to_plain_autograd(form, block, shape, t, sharpness, seed, dtype):
    tau = max(t, 0.1) ** 2 / sharpness
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(form, monkeypatch, block)
        weight, gradient = randn(shape, dtype=dtype, seed=seed), randn(shape, dtype=dtype, seed=seed + 1)
        weight[weight.abs() < 0.1] = 0.0
        got = output_and_gradient(fused, weight, t, tau, gradient)
    want = output_and_gradient(naive, weight, t, tau, gradient)
    exact = dtype == torch.float64
    assert torch.allclose(got[0], want[0], rtol=1e-10 if exact else 1e-3, atol=1e-14 if exact else 1e-6)
    assert torch.allclose(got[1], want[1], rtol=1e-10 if exact else 1e-3, atol=1e-12 if exact else 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_are_computed_with_in_thirty_two(form, dtype):
    weight = randn(4, 9, dtype=torch.float32).to(dtype)
    got = output_and_gradient(fused, weight, 1.0, 0.125)
    want = output_and_gradient(fused, weight.float(), 1.0, 0.125)
    for narrow, wide in zip(got, want, strict=True):
        assert narrow.dtype == dtype
        assert torch.equal(narrow, wide.to(dtype))


def test_a_threshold_of_zero_halves_the_slope_at_zero_and_changes_nothing_else(form):
    weight = torch.tensor([0.0, -0.0, 1e-3, -5.0])
    effective, slope = output_and_gradient(fused, weight, 0.0, 1e-30)
    assert torch.equal(effective, weight)
    assert slope.tolist() == [0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_stays_where_it_is(form, dtype):
    weight = randn(12, dtype=dtype)
    weight[3] = float("nan")
    for result in output_and_gradient(fused, weight, 0.7, 0.2):
        assert result.isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_weight_is_kept_for_the_backward_pass(form, dtype):
    weight = randn(40, dtype=dtype).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        fused(weight, 0.7, 0.2)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() > 1] == [weight.data_ptr()]


def test_a_compiler_sees_one_graph():
    weight = randn(8, 8, dtype=torch.float32).requires_grad_()
    t_squared, tau = torch.tensor([[0.5]]), torch.tensor([[0.1]])
    compiled = torch.compile(lambda w: soft_masked(w, t_squared, tau), backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(weight).sum(), weight)[0]
    want = torch.autograd.grad(soft_masked(weight, t_squared, tau).sum(), weight)[0]
    assert torch.allclose(got, want, rtol=1e-5)
