import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.schedules import Constant, PDPRamp, Polynomial, Timeline


def test_cubic_is_zhu_and_guptas():
    cubic = Polynomial(begin=0.0, end=1.0, power=3.0)
    timeline = Timeline(steps_per_epoch=10, total_steps=101)
    assert cubic(0.8, 0, timeline) == 0
    assert cubic(0.8, 50, timeline) == pytest.approx(0.8 * (1 - 0.5**3))
    assert cubic(0.8, 100, timeline) == 0.8


def test_linear_between_fractions():
    linear = Polynomial(begin=0.25, end=0.75, power=1.0)
    timeline = Timeline(steps_per_epoch=10, total_steps=101)
    assert [linear(1.0, step, timeline) for step in (0, 25, 50, 75, 100)] == [0, 0, 0.5, 1, 1]


def test_constant_starts_at_its_time():
    timeline = Timeline(steps_per_epoch=10, total_steps=100)
    assert Constant(0.0)(0.9, 0, timeline) == 0.9
    assert [Constant(0.5)(0.9, step, timeline) for step in (49, 50)] == [0.0, 0.9]


def test_pdp_ramp_reaches_its_target_after_67_epochs_as_a_fraction_and_58_as_an_absolute_sparsity():
    timeline = Timeline(steps_per_epoch=1, total_steps=100)
    fraction = PDPRamp(warmup_epochs=16, epsilon=0.015, mode="fraction", first=1)
    absolute = PDPRamp(warmup_epochs=16, epsilon=0.015, mode="absolute", first=1)
    assert fraction(0.866, 15, timeline) == 0
    assert fraction(0.866, 16, timeline) == pytest.approx(0.015 * 0.866)
    assert absolute(0.866, 16, timeline) == 0.015
    full = [epoch for epoch in range(100) if fraction(0.866, epoch, timeline) == 0.866]
    assert full[0] - 16 == 66  # the 67th pruned epoch
    full = [epoch for epoch in range(100) if absolute(0.866, epoch, timeline) == 0.866]
    assert full[0] - 16 == 57


def test_pdp_ramp_is_constant_within_an_epoch():
    ramp = PDPRamp(warmup_epochs=1, epsilon=0.5, mode="fraction", first=0)
    timeline = Timeline(steps_per_epoch=3, total_steps=12)
    assert [ramp(1.0, step, timeline) for step in range(12)] == [0] * 6 + [0.5] * 3 + [1.0] * 3


def test_a_schedule_that_ends_too_late_is_refused():
    ramp = PDPRamp(warmup_epochs=16, epsilon=0.015, mode="fraction", first=1)
    with pytest.raises(ValueError, match="reaches a sparsity of only"):
        ramp.check(0.9, Timeline(steps_per_epoch=10, total_steps=500))
    ramp.check(0.9, Timeline(steps_per_epoch=10, total_steps=1000))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Polynomial(begin=0.5, end=0.2, power=3.0), "schedule.begin=0.5"),
        (lambda: Polynomial(begin=0.0, end=1.2, power=3.0), "schedule.end=1.2"),
        (lambda: Polynomial(begin=0.0, end=1.0, power=0.0), "schedule.power=0.0"),
        (lambda: Constant(-0.1), "schedule.begin=-0.1"),
        (lambda: PDPRamp(16, 0.0, "fraction", 1), "schedule.epsilon=0.0"),
        (lambda: PDPRamp(16, 0.1, "linear", 1), "schedule.mode=linear"),
        (lambda: PDPRamp(-1, 0.1, "fraction", 1), "schedule.warmup_epochs=-1"),
        (lambda: PDPRamp(1, 0.1, "fraction", 2), "schedule.first=2"),
    ],
)
def test_impossible_values_are_named(make, key):
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        make()


@given(
    st.sampled_from(
        [Polynomial(0.1, 0.7, 3.0), Polynomial(0.0, 1.0, 1.0), Constant(0.3), PDPRamp(2, 0.2, "absolute", 0)]
    ),
    st.integers(1, 7),
    st.integers(1, 90),
    st.floats(0, 0.99),
)
def test_schedules_never_fall_and_stay_in_range(schedule, steps_per_epoch, total_steps, final):
    timeline = Timeline(steps_per_epoch, total_steps)
    values = [schedule(final, step, timeline) for step in range(total_steps)]
    assert values == sorted(values)
    assert all(0 <= value <= final for value in values)


def test_even_one_step_reaches_the_end():
    for schedule in (Polynomial(0.0, 1.0, 3.0), Constant(0.9)):
        schedule.check(0.9, Timeline(1, 1))
