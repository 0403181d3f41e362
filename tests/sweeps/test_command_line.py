"""What is typed behind `prune-run -m`, and what of it Hydra leaves to the runs."""

import sys

import pytest

from pruneexp import cli
from pruneexp.composing import deferred, typed


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dataset.root=/a b", "dataset.root=choice(/a b)"),
        ("model.stem='it is'", "model.stem=choice('it is')"),
        ("exclude.x=[first,head]", "exclude.x=choice([first,head])"),
        ("+method.new=3", "+method.new=choice(3)"),
        ("dataset.path=${hydra:runtime.choices.dataset}", "dataset.path=choice(${hydra:runtime.choices.dataset})"),
        *((word, word) for word in ("seed=1", "method.tau=1,2", "method.tau=range(1,3)", "~method.tau", "method.tau=")),
        *((word, word) for word in ("hydra.launcher.n_jobs=2", "sweep.fail_fast=true", "a.b=x=y", "a.b=(x", "-m")),
    ],
)
def test_one_value_of_an_option_of_a_choice_is_left_to_the_runs(word, expected):
    assert deferred(word) == expected
    assert typed(expected) == word


@pytest.mark.parametrize("words", [["table=pdp_cifar10", "size=short"], ["dataset=cifar10,cifar10"]])
def test_an_option_of_a_dataset_that_is_not_the_default_one_reaches_the_runs(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["seed=1", "sparsity=0.9", "method=random", "dataset.root=nowhere", "logger=none", "dense=none"]
    monkeypatch.setattr(sys, "argv", ["prune-run", "-m", *words, *options])
    with pytest.raises(SystemExit):
        cli.main()
    assert "dataset.root=nowhere: no folder there" in capsys.readouterr().err
