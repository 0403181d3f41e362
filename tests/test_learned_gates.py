import math

import torch

from pruneexp.hard_concrete import HardConcrete
from pruneexp.learned_gates import LearnedGates


def gates(*log_alpha):
    return LearnedGates(
        torch.tensor(log_alpha), HardConcrete(temperature=2 / 3, low=-0.1, high=1.1, sharpness=0.8), limit=100.0
    )


def test_samples_depend_on_seed_and_step_and_on_nothing_else():
    one, other = gates(*[0.0] * 50), gates(*[0.0] * 50)
    draws = {}
    for seed, step in ((1, 3), (1, 4), (2, 3)):
        one.seed_(seed, step)
        torch.manual_seed(step)  # another process has another global state
        draws[seed, step] = first = one.sample()
        torch.rand(7)
        other.seed_(seed, step)
        assert torch.equal(other.sample(), first)
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3


def test_every_sample_of_a_step_is_a_fresh_one():
    learned = gates(*[0.0] * 50)
    learned.seed_(1, 0)
    assert not torch.equal(learned.sample(), learned.sample())


def test_log_alpha_stays_within_its_limits():
    learned = gates(10.0, -10.0, 1.5)
    learned.clamp_()
    assert torch.allclose(learned.log_alpha(), torch.tensor([math.log(100), -math.log(100), 1.5]))
