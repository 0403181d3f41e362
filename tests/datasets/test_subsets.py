"""Splits and subsets are stratified, nested, complete, and fixed by their own seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneexp.datasets.subsets import Subsets, stratified_order


def subsets(**changes):
    defaults = {"validation_fraction": 0.2, "split_seed": 0, "fraction": None, "max_examples": None}
    return Subsets(**(defaults | changes))


def classes(*counts):
    return torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0, 1))
def test_every_prefix_is_stratified(counts, share):
    labels = classes(*counts)
    order = stratified_order(labels, 7)
    assert sorted(order.tolist()) == list(range(len(labels)))
    prefix = order[: round(share * len(labels))]
    found = labels[prefix].bincount(minlength=len(counts))
    wanted = torch.tensor(counts) * (len(prefix) / len(labels))
    # Each class is rounded to within 1/2 of its share of a common place; the places' own rounding adds up over classes.
    slack = 1 + 0.5 * len(counts) * torch.tensor(counts) / len(labels)
    assert ((found - wanted).abs() <= slack).all()


def test_equal_classes_differ_by_at_most_one():
    order = stratified_order(classes(30, 30, 30, 30), 1)
    for length in range(1, 121):
        found = classes(30, 30, 30, 30)[order[:length]].bincount(minlength=4)
        assert found.max() - found.min() <= 1


def test_values_are_stratified_by_decile():
    values = torch.linspace(0, 5, 100)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    tenth = values[stratified_order(values, 0)[:10]].sort().values
    assert (tenth * 2).floor().clamp(max=9).tolist() == list(range(10))


def test_train_and_test_get_a_validation_part_carved_out_of_train():
    sources = {"train": classes(50, 50), "test": classes(5, 5)}
    parts = subsets().divide(sources)
    assert {name: source for name, (source, _) in parts.items()} == {
        "train": "train",
        "validation": "train",
        "test": "test",
    }
    assert sources["train"][parts["validation"][1]].bincount().tolist() == [10, 10]
    assert parts["test"][1].tolist() == list(range(10))
    both = torch.cat([parts["train"][1], parts["validation"][1]])
    assert both.sort().values.tolist() == list(range(100))


def test_without_test_the_public_validation_part_is_reported():
    parts = subsets().divide({"train": classes(50, 50), "validation": classes(5, 5)})
    assert parts["test"][0] == "validation"
    assert parts["validation"][0] == "train"


def test_all_three_are_left_as_they_are():
    sources = {"train": classes(5, 5), "validation": classes(2, 2), "test": classes(3, 3)}
    parts = subsets().divide(sources)
    assert {name: (source, len(positions)) for name, (source, positions) in parts.items()} == {
        "train": ("train", 10),
        "validation": ("validation", 4),
        "test": ("test", 6),
    }


def test_a_single_source_is_divided_in_three_disjoint_parts():
    parts = subsets().divide({"train": classes(50, 50)})
    assert [len(parts[name][1]) for name in ("train", "validation", "test")] == [60, 20, 20]
    assert torch.cat([positions for _, positions in parts.values()]).sort().values.tolist() == list(range(100))


def test_only_split_seed_moves_the_split():
    sources = {"train": classes(50, 50)}
    first, again, other = (subsets(split_seed=seed).divide(sources)["validation"][1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_subsets_are_nested_and_stratified():
    labels, positions = classes(100, 300), torch.arange(0, 400, 2)
    small, large = (subsets(fraction=fraction).shorten(labels, positions) for fraction in (0.1, 0.3))
    assert labels[small].bincount().tolist() == [5, 15]
    assert labels[large].bincount().tolist() == [15, 45]
    assert set(small.tolist()) < set(large.tolist()) < set(positions.tolist())


@pytest.mark.parametrize(
    ("fraction", "max_examples", "count"),
    [(None, None, 100), (0.5, None, 50), (0.5, 20, 20), (None, 500, 100), (0.001, None, 1)],
)
def test_how_many_examples_are_used(fraction, max_examples, count):
    labels = classes(50, 50)
    assert len(subsets(fraction=fraction, max_examples=max_examples).shorten(labels, torch.arange(100))) == count


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("split_seed", -1),
        ("fraction", 0.0),
        ("fraction", 1.1),
        ("max_examples", 0),
    ],
)
def test_impossible_options_are_named(key, value):
    with pytest.raises(ValueError, match=f"dataset.{key}={value}: give "):
        subsets(**{key: value})


def test_a_validation_part_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"validation_fraction=0.9: nothing is left to train on of 2 examples"):
        subsets(validation_fraction=0.9).divide({"train": classes(1, 1), "test": classes(1, 1)})
