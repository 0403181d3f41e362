import io

import pytest
from rich.console import Console

from pruneexp.report.console import _duration, bytes_text, count_text, rows, summary_table
from pruneexp.report.scores import is_percentage, score_text

SUMMARY = {
    "headline": {"name": "accuracy", "value": 0.9021, "split": "test"},
    "dense": {"name": "accuracy", "value": 0.9312, "split": "test"},
    "sparsity": {"target": 0.9, "prunable": 0.9, "total": 0.8934},
    "params": {"total": 11_173_962, "nonzero": 1_123_456},
    "macs": {"dense": 40_551_040, "effective": 5_551_040},
    "size_bytes": {"dense": 44_723_912, "compressed": 6_123_456},
    "epochs": 20,
    "steps": 7820,
    "seed": 1,
    "wall_seconds": 3725.4,
    "method": "pdp",
    "model": "resnet20",
    "dataset": "cifar10",
    "majority_rate": 0.1,
}


def printed(summary, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(summary_table(summary))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_whole_table():
    assert [line for line in printed(SUMMARY) if line and "─" not in line] == [
        "pdp, resnet20 on cifar10, seed 1",
        "dense pruned",
        "test accuracy 93.12 % 90.21 %",
        "test majority class 10.00 %",
        "target sparsity 90.00 %",
        "sparsity, prunable 90.00 %",
        "sparsity, all parameters 89.34 %",
        "non-zero parameters 11,173,962 1,123,456 9.9 x less",
        "MACs (zeros skipped) 40.55 M 5.551 M 7.3 x less",
        "size (zeros packed) 44.72 MB 6.123 MB 7.3 x less",
        "epochs, steps 20, 7,820",
        "time 1 h 02 min",
    ]


def test_what_is_unknown_or_does_not_apply():
    dense_run = SUMMARY | {
        "headline": {"name": "matthews", "value": 0.5124, "split": "test"},
        "dense": None,
        "majority_rate": None,
        "sparsity": {"target": None, "prunable": 0.0, "total": 0.0},
        "macs": {"dense": 1000, "effective": 1000},
    }
    lines = {label: rest for label, *rest in rows(dense_run)}
    assert lines["test matthews"] == ["-", "0.512", ""]
    assert lines["MACs (zeros skipped)"] == ["1 k", "1 k", ""]
    assert "target sparsity" not in lines and "test majority class" not in lines
    del dense_run["majority_rate"]
    assert len(rows(dense_run)) == len(lines)


def test_a_model_without_weights_is_no_division_by_zero():
    empty = SUMMARY | {"macs": {"dense": 1000, "effective": 0}, "params": {"total": 10, "nonzero": 0}}
    assert ("non-zero parameters", "10", "0", "") in rows(empty)


def test_it_fits_eighty_columns_with_long_names():
    big = SUMMARY | {"model": "a_model_with_a_long_name" * 2, "dataset": "a_dataset_with_a_long_name" * 2}
    big |= {
        "params": {"total": 108_311_810, "nonzero": 12_345_678},
        "macs": {"dense": 11_174_215_680, "effective": 10**9},
    }
    lines = printed(big)
    assert "non-zero parameters 108,311,810 12,345,678 8.8 x less" in lines
    assert "MACs (zeros skipped) 11.17 G 1 G 11.2 x less" in lines


@pytest.mark.parametrize(
    "number, count, size",
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (1000, "1 k", "1 kB"),
        (44_723_912, "44.72 M", "44.72 MB"),
        (1_814_073_344, "1.814 G", "1.814 GB"),
    ],
)
def test_large_numbers(number, count, size):
    assert (count_text(number), bytes_text(number)) == (count, size)


@pytest.mark.parametrize(
    "seconds, text",
    [(12.34, "12.3 s"), (60, "1 min 00 s"), (119.7, "2 min 00 s"), (3599.6, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations(seconds, text):
    assert _duration(seconds) == text


def test_fractions_are_percentages_and_correlations_are_not():
    assert [is_percentage(name) for name in ("accuracy", "f1", "macro_f1")] == [True] * 3
    assert [is_percentage(name) for name in ("matthews", "pearson", "spearman", "loss")] == [False] * 4
    assert score_text("accuracy", 0.9275) == "92.75 %" and score_text("pearson", -0.5) == "-0.500"
