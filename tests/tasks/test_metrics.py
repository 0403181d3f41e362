"""Metrics against numbers worked out by hand and against scikit-learn and SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from pruneexp.tasks import metrics

classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
few_values = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=40)


def pair(rows, dtype=torch.int64):
    predictions, labels = zip(*rows, strict=True)
    return torch.tensor(predictions, dtype=dtype), torch.tensor(labels, dtype=dtype)


def test_by_hand():
    predictions, labels = torch.tensor([1, 1, 0, 0, 1]), torch.tensor([1, 0, 0, 1, 1])  # TP 2, FP 1, FN 1, TN 1
    assert metrics.accuracy(predictions, labels) == pytest.approx(3 / 5)
    assert metrics.f1(predictions, labels) == pytest.approx(4 / 6)
    assert metrics.macro_f1(predictions, labels) == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert metrics.matthews(predictions, labels) == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])
    assert metrics.pearson(x, y) == pytest.approx(0.5)
    assert metrics.spearman(torch.tensor([1.0, 5.0, 5.0]), y) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert metrics.majority_rate(torch.tensor([0, 2, 2, 1, 2])) == pytest.approx(3 / 5)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None)
@given(rows=classes)
def test_class_metrics_are_those_of_scikit_learn(rows):
    predictions, labels = pair(rows)
    assert metrics.accuracy(predictions, labels) == pytest.approx(reference.accuracy_score(labels, predictions))
    wanted = reference.f1_score(labels, predictions, average="macro", zero_division=0)
    assert metrics.macro_f1(predictions, labels) == pytest.approx(wanted)
    with np.errstate(all="ignore"):
        assert metrics.matthews(predictions, labels) == pytest.approx(reference.matthews_corrcoef(labels, predictions))
    two = predictions.clamp(max=1), labels.clamp(max=1)
    assert metrics.f1(*two) == pytest.approx(reference.f1_score(two[1], two[0], zero_division=0))


@settings(deadline=None)
@given(rows=few_values)
def test_correlations_are_those_of_scipy(rows):
    predictions, labels = pair(rows, torch.float32)
    constant = len(predictions.unique()) == 1 or len(labels.unique()) == 1
    for name in ("pearson", "spearman"):
        found = getattr(metrics, name)(predictions, labels)
        function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
        assert found == pytest.approx(
            0.0 if constant else function(predictions.double(), labels.double()).statistic, abs=1e-9
        )


def test_large_sets_do_not_overflow():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400_000,), generator=generator)
    predictions = torch.where(torch.rand(400_000, generator=generator) < 0.9, labels, 1 - labels)
    assert metrics.matthews(predictions, labels) == pytest.approx(0.8, abs=0.01)
    assert metrics.pearson(predictions.float() * 1e-20, labels.float()) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e20])
def test_constant_predictions_correlate_with_nothing(value):
    constant, labels = torch.full((7,), value), torch.arange(7.0)
    assert metrics.pearson(constant, labels) == metrics.pearson(labels, constant) == 0.0
    assert metrics.spearman(constant, labels) == metrics.spearman(labels, constant) == 0.0


def test_one_class_only():
    zeros, labels = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 1, 2])
    assert metrics.matthews(zeros, labels) == metrics.matthews(labels, zeros) == metrics.matthews(zeros, zeros) == 0.0
    assert metrics.f1(zeros, zeros) == 0.0
    assert metrics.macro_f1(zeros, zeros) == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_give_nan(value):
    predictions, labels = torch.tensor([1.0, value, 3.0]), torch.arange(3.0)
    assert math.isnan(metrics.pearson(predictions, labels))
    assert math.isnan(metrics.spearman(predictions, labels))


def test_no_prediction_is_wrong():
    predictions, labels = torch.tensor([-1, 0, -1, 1]), torch.tensor([0, 0, 1, 1])
    assert metrics.accuracy(predictions, labels) == 0.5
    assert metrics.f1(predictions, labels) == pytest.approx(2 / 3)
    assert metrics.macro_f1(predictions, labels) == pytest.approx(2 / 3)
    nothing = torch.full((4,), -1)
    assert (
        metrics.accuracy(nothing, labels)
        == metrics.macro_f1(nothing, labels)
        == metrics.matthews(nothing, labels)
        == 0.0
    )
