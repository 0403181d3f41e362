"""The hard-concrete distribution against its closed forms."""

import math

import pytest
import torch

from pruneexp.hard_concrete import HardConcrete

GATE = HardConcrete(temperature=2 / 3, low=-0.1, high=1.1, sharpness=0.8)
LOG_ALPHA = torch.linspace(-4, 4, 9, dtype=torch.float64)


@pytest.mark.parametrize(
    ("log_alpha", "uniform", "expected"),
    [
        (0.0, 0.5, 0.5),
        (1.0, 0.5, 1.2 / (1 + math.exp(-1.5)) - 0.1),
        (0.0, 0.6, 1.2 / (1 + (0.6 / 0.4) ** -1.5) - 0.1),
        (-4.0, 0.5, 0.0),
        (4.0, 0.5, 1.0),
        (0.0, 0.0, 0.0),  # the edges of the uniform number are cut off
        (0.0, 1.0, 1.0),
    ],
)
def test_samples_by_hand(log_alpha, uniform, expected):
    got = GATE.sample(torch.tensor(log_alpha).double(), torch.tensor(uniform).double())
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize(("log_alpha", "expected"), [(-4.605, 0.0471), (-2, 0.401), (0, 0.832), (4.605, 0.998)])
def test_openness_has_the_values_of_the_literature(log_alpha, expected):
    assert GATE.openness(torch.tensor(float(log_alpha))).item() == pytest.approx(expected, abs=5e-4)


def test_openness_is_the_share_of_uniform_numbers_that_give_an_open_gate():
    """z rises with u, so P(z > 0) = 1 - u where z leaves 0."""
    closed = 1 - GATE.openness(LOG_ALPHA)
    assert not GATE.sample(LOG_ALPHA, closed - 1e-4).any()
    assert bool((GATE.sample(LOG_ALPHA, closed + 1e-4) > 0).all())


def test_openness_is_the_mean_of_open_samples():
    uniform = torch.rand(200_000, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = (GATE.sample(LOG_ALPHA, uniform) > 0).double().mean(0)
    assert torch.allclose(share, GATE.openness(LOG_ALPHA), atol=4e-3)


def test_the_value_without_noise_is_a_sigmoid_of_1_2_log_alpha():
    expected = [1 / (1 + math.exp(-1.2 * x)) for x in LOG_ALPHA.tolist()]
    assert GATE.value(LOG_ALPHA).tolist() == pytest.approx(expected)


def test_samples_and_openness_have_the_gradients_of_finite_differences():
    log_alpha = torch.tensor([-0.7, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: GATE.sample(a, uniform), log_alpha)
    assert torch.autograd.gradcheck(GATE.openness, log_alpha)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0.0}, r"gate\.temperature=0\.0: must be positive"),
        ({"sharpness": -1.0}, r"gate\.sharpness=-1\.0: must be positive"),
        ({"low": 0.1}, r"gate\.low=0\.1, gate\.high=1\.1: want low < 0"),
        ({"high": 0.9}, r"gate\.low=-0\.1, gate\.high=0\.9: want low < 0 and high > 1"),
    ],
)
def test_impossible_values_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        HardConcrete(**{"temperature": 1.0, "low": -0.1, "high": 1.1, "sharpness": 1.0, **changes})
