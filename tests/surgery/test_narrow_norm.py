"""LayerNorm over what is left, as if the rest were still there and zero."""

import copy

import pytest
import torch
from torch import nn

from pruneexp.surgery.narrow_norm import NarrowLayerNorm

KEPT = [0, 2, 3, 7]


def pair(dtype=torch.float64, spread=False):
    """A norm of 4 of 10 dimensions, and the whole one whose weights and biases are zero in the others."""
    source = [KEPT.index(d) if d in KEPT else -1 for d in range(10)]
    narrow, whole = NarrowLayerNorm(4, 10, 1e-5, source if spread else None), nn.LayerNorm(10)
    torch.nn.init.normal_(narrow.weight)
    torch.nn.init.normal_(narrow.bias)
    for key in ("weight", "bias"):
        values = torch.zeros(10)
        values[KEPT] = getattr(narrow, key).detach()
        setattr(whole, key, nn.Parameter(values))
    return narrow.to(dtype), whole.to(dtype)


def inputs(dtype=torch.float64, scale=1.0, shift=0.0):
    x = torch.randn(3, 5, 4, dtype=torch.float64) * scale + shift
    wide = torch.zeros(3, 5, 10, dtype=torch.float64)
    wide[..., KEPT] = x
    return x.to(dtype), wide.to(dtype)


def test_numbers_by_hand():
    """(1, 2, 6) and two zeros: mean 9/5, variance (41 - 81/5) / 5 = 4.96, which an eps of 0.04 makes 5."""
    norm = NarrowLayerNorm(3, 5, 0.04).double()
    norm.weight.data[:] = torch.tensor([1.0, 2.0, 3.0])
    norm.bias.data[:] = torch.tensor([0.0, 10.0, 0.5])
    expected = torch.tensor([-0.8 / 5**0.5, 10 + 0.4 / 5**0.5, 0.5 + 12.6 / 5**0.5], dtype=torch.float64)
    torch.testing.assert_close(norm(torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)), expected)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.0), (1e3, 1e3), (1e-3, 1e2), (0.0, 0.0)])
def test_it_is_the_closed_form_of_sums_over_what_is_left(scale, shift):
    norm, _ = pair()
    x, _ = inputs(scale=scale, shift=shift)
    mean = x.sum(-1, keepdim=True) / 10
    variance = ((x - mean).square().sum(-1, keepdim=True) + 6 * mean.square()) / 10
    expected = (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.half, 1e-3)]
)
def test_it_is_the_whole_norm_of_a_masked_network(dtype, tolerance, spread):
    (narrow, whole), (x, wide) = pair(dtype, spread), inputs(dtype)
    expected = whole(wide)
    found = narrow(x)
    assert found.dtype == dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected if spread else expected[..., KEPT], rtol=tolerance, atol=tolerance)
    if spread:
        assert not found[..., [1, 4, 5, 6, 8, 9]].any()


def test_gradients_are_those_of_the_whole_norm():
    (narrow, whole), (x, wide) = pair(), inputs()
    weights = torch.randn(3, 5, 4, dtype=torch.float64)
    (narrow(x.requires_grad_()) * weights).sum().backward()
    (whole(wide.requires_grad_())[..., KEPT] * weights).sum().backward()
    torch.testing.assert_close(x.grad, wide.grad[..., KEPT], rtol=1e-12, atol=1e-12)
    for key in ("weight", "bias"):
        found, expected = (getattr(norm, key).grad for norm in (narrow, whole))
        torch.testing.assert_close(found, expected[KEPT], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [False, True])
def test_compiled_exported_and_under_autocast_it_stays_the_same(spread):
    (narrow, whole), (x, wide) = pair(torch.float32, spread), inputs(torch.float32)
    expected = narrow(x)
    torch.testing.assert_close(torch.compile(narrow, backend="aot_eager", fullgraph=True)(x), expected)
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(narrow, (x,), dynamic_shapes=({0: batch, 1: batch},)).module()
    torch.testing.assert_close(program(x[:2, :3]), expected[:2, :3])
    with torch.autocast("cpu", torch.bfloat16):
        found, masked = narrow(x.bfloat16()), whole(wide.bfloat16())
    torch.testing.assert_close(found, masked if spread else masked[..., KEPT])  # of the same dtype


def test_the_state_dict_has_the_keys_of_a_layer_norm():
    norm, _ = pair(spread=True)
    assert set(norm.state_dict()) == {"weight", "bias"}
    assert repr(norm) == "NarrowLayerNorm(4, full_width=10, eps=1e-05, source=...)"
    assert copy.deepcopy(norm).index.tolist() == norm.source == [0, -1, 1, 2, -1, -1, -1, 3, -1, -1]
