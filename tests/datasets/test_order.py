"""The order of examples is a pure function of (seed, step), and processes share every batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneexp.datasets.order import eval_draws, steps_per_epoch, train_draws
from pruneexp.datasets.seeds import mixed

sizes = st.integers(1, 60)


def draws(n, batch_size, steps, seed=1, **ranks):
    first, last = steps
    return list(train_draws(n, batch_size=batch_size, seed=seed, first_step=first, last_step=last, **ranks))


@pytest.mark.parametrize(
    ("n", "batch_size", "steps"), [(10, 3, 3), (9, 3, 3), (2, 3, 1), (3, 3, 1), (50_000, 128, 390)]
)
def test_steps_per_epoch(n, batch_size, steps):
    assert steps_per_epoch(n, batch_size) == steps


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, epoch=st.integers(0, 3))
def test_an_epoch_holds_every_example_once_but_for_the_rest(n, batch_size, epoch):
    per_epoch = steps_per_epoch(n, batch_size)
    epoch_draws = draws(n, batch_size, (epoch * per_epoch, (epoch + 1) * per_epoch))
    assert {len(draw.indices) for draw in epoch_draws} == {min(n, batch_size)}
    seen = torch.cat([draw.indices for draw in epoch_draws]).tolist()
    assert len(set(seen)) == len(seen) == per_epoch * min(n, batch_size)
    assert set(seen) <= set(range(n))


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, start=st.integers(0, 30))
def test_a_draw_is_a_pure_function_of_seed_and_step(n, batch_size, start):
    whole, resumed = draws(n, batch_size, (0, 40)), draws(n, batch_size, (start, 40))
    assert len(resumed) == 40 - start
    for a, b in zip(whole[start:], resumed, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert a.seed == b.seed


def test_epochs_and_seeds_differ():
    first, second = draws(100, 100, (0, 2))
    (other,) = draws(100, 100, (0, 1), seed=2)
    assert not torch.equal(first.indices, second.indices)
    assert not torch.equal(first.indices, other.indices)
    assert len({first.seed, second.seed, other.seed}) == 3


def test_the_order_is_pinned():
    """A change here silently changes every result and breaks the resumption of runs in progress."""
    (draw,) = draws(8, 8, (0, 1), seed=0)
    assert draw.indices.tolist() == [3, 2, 5, 1, 7, 4, 6, 0]
    assert draw.seed == 3717377837946358015


def test_mixed_seeds_depend_on_every_number_and_its_place():
    assert len({mixed(1, 2, 3), mixed(1, 3, 2), mixed(0, 1, 2, 3), mixed(1, 2), mixed(1, 2, 4)}) == 5


@settings(deadline=None)
@given(n=sizes, shares=st.integers(1, 8), world_size=st.integers(1, 4))
def test_processes_share_training_batches_equally_and_in_order(n, shares, world_size):
    batch_size = shares * world_size
    if min(n, batch_size) % world_size:
        return
    whole = draws(n, batch_size, (0, 5))
    ranks = [draws(n, batch_size, (0, 5), rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, draw in enumerate(whole):
        parts = [rank[step].indices[rank[step].part] for rank in ranks]
        assert len({len(part) for part in parts}) == 1
        assert torch.equal(torch.cat(parts), draw.indices)
        assert {rank[step].seed for rank in ranks} == {draw.seed}


@pytest.mark.parametrize(("n", "batch_size"), [(100, 10), (7, 100)])
def test_a_batch_that_does_not_divide_is_refused_at_once(n, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: .* does not divide by 4 processes"):
        train_draws(n, batch_size=batch_size, seed=0, first_step=0, last_step=1, rank=0, world_size=4)


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, world_size=st.integers(1, 4))
def test_gathered_evaluation_is_every_example_once_in_order(n, batch_size, world_size):
    ranks = [list(eval_draws(n, batch_size=batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    gathered = []
    for together in zip(*ranks, strict=True):
        parts = [draw.indices[draw.part] for draw in together]
        assert len({len(part) for part in parts}) == 1
        gathered += torch.cat(parts)[: together[0].count].tolist()
    assert gathered == list(range(n))
    assert {len(draw.indices) for draw in ranks[0]} == {len(ranks[0][0].indices)}
    assert {draw.seed for draw in ranks[0]} == {None}
