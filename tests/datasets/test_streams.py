"""The order of batches of several tasks, and images made to fit."""

from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from pruneexp.datasets.base import TARGET, DataInfo, Split, Splits
from pruneexp.datasets.fitted import fitted
from pruneexp.datasets.order import eval_draws
from pruneexp.datasets.streams import Stream, Streams


class Numbers(Split):
    """Its examples are their positions."""

    def __init__(self, count):
        self.labels = torch.arange(count)

    def serve(self, draws):
        for draw in draws:
            own = draw.indices[draw.part]
            yield {"inputs": own, "labels": self.labels[own]}


def streams(*, alternate=False):
    auxiliary = {"small": Stream(Numbers(3), 4, 7), "other": Stream(Numbers(50), 6, 8)}
    return Streams(Stream(Numbers(20), 8, 1), auxiliary, alternate)


def flat(batch):
    """A batch as lists of numbers, by task."""
    others = {name: part["labels"].tolist() for name, part in batch.get("auxiliary", {}).items()}
    return {batch.get("task", TARGET): batch["labels"].tolist(), **others}


def test_every_step_has_a_batch_of_each_task_and_epochs_are_the_targets():
    given = streams()
    batches = [flat(batch) for batch in given.batches(0, 3)]
    assert [{name: len(rows) for name, rows in batch.items()} for batch in batches] == [
        {"target": 8, "small": 3, "other": 6}
    ] * 3
    assert given.steps_per_epoch == 2
    assert given.examples_per_step == 17


def test_the_targets_order_is_the_same_with_auxiliary_tasks_and_without():
    alone = Streams(Stream(Numbers(20), 8, 1), {}, False)
    rows = [batch["labels"].tolist() for batch in alone.batches(0, 5)]
    assert [flat(batch)[TARGET] for batch in streams().batches(0, 5)] == rows
    assert [flat(batch)[TARGET] for batch in islice(streams(alternate=True).batches(0, 15), 0, None, 3)] == rows


def stages(step):
    """Two stages of three steps, the first without the target, then all tasks."""
    return (("other", "small"), (TARGET,), None)[step // 3]


def test_a_step_has_batches_of_the_tasks_that_it_trains_and_each_task_goes_on_where_it_was():
    batches = [flat(batch) for batch in streams().batches(0, 9, tasks=stages)]
    assert [list(batch) for batch in batches] == [["small", "other"]] * 3 + [[TARGET]] * 3 + [
        ["target", "small", "other"]
    ] * 3
    whole = [flat(batch) for batch in streams().batches(0, 6)]
    for name, steps in ((TARGET, range(3, 9)), ("small", (0, 1, 2, 6, 7, 8)), ("other", (0, 1, 2, 6, 7, 8))):
        assert [batches[step][name] for step in steps] == [batch[name] for batch in whole]


def test_in_turn_the_tasks_of_a_stage_take_turns():
    batches = [flat(batch) for batch in streams(alternate=True).batches(0, 9, tasks=stages)]
    names = ["small", "other", "small", TARGET, TARGET, TARGET, "target", "small", "other"]
    assert [list(batch) for batch in batches] == [[name] for name in names]


@pytest.mark.parametrize("tasks", [lambda step: None, stages], ids=["all", "stages"])
@pytest.mark.parametrize("alternate", [False, True])
def test_a_run_can_start_at_any_step(alternate, tasks):
    steady = [flat(batch) for batch in streams(alternate=alternate).batches(0, 9, tasks=tasks)]
    for first in range(9):
        later = streams(alternate=alternate).batches(first, 9, tasks=tasks)
        assert [flat(batch) for batch in later] == steady[first:]


def test_tasks_take_turns_and_an_epoch_is_still_one_pass_through_the_target():
    given = streams(alternate=True)
    batches = [flat(batch) for batch in given.batches(0, 6)]
    assert [list(batch) for batch in batches] == [["target"], ["small"], ["other"]] * 2
    together = [flat(batch) for batch in streams().batches(0, 2)]
    for step, batch in enumerate(batches):
        ((name, rows),) = batch.items()
        assert rows == together[step // 3][name]
    assert given.steps_per_epoch == 6
    assert given.examples_per_step == 17 / 3


def test_processes_share_every_task_s_batch():
    options = {"auxiliary": {"other": Stream(Numbers(50), 6, 8)}, "alternate": False}
    given = Streams(Stream(Numbers(20), 8, 1), **options)
    (whole,), (first,), (second,) = (
        [flat(batch) for batch in given.batches(0, 1, rank=rank, world_size=size)]
        for rank, size in ((0, 1), (0, 2), (1, 2))
    )
    assert {name: first[name] + second[name] for name in whole} == whole


@pytest.mark.parametrize(
    ("world_size", "accumulate", "message"),
    [
        (3, 1, "batch_size=8: a batch of 8 examples does not divide by 3 processes"),
        (2, 1, "auxiliary task small: batch_size=4: a batch of 3 examples does not divide by 2 processes"),
        (1, 4, "training.accumulate=4: a process has 3 examples of the auxiliary task small in a step"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(world_size, accumulate, message):
    with pytest.raises(ValueError, match="batch") as error:
        streams().check(world_size=world_size, accumulate=accumulate)
    assert message in str(error.value)


class Images(Split):
    def __init__(self, images):
        self.images, self.labels = images, torch.zeros(len(images), dtype=torch.int64)

    def serve(self, draws):
        for draw in draws:
            yield {"inputs": self.images[draw.indices], "labels": self.labels[draw.indices]}


def image_splits(channels, size):
    images = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(0))
    info = DataInfo(kind="image", num_outputs=10, metrics=("accuracy",), channels=channels, image_size=size)
    return Splits(info=info, **{name: Images(images) for name in ("train", "validation", "test")}), images


def test_images_take_the_targets_size_and_grey_ones_its_channels():
    target, _ = image_splits(3, 8)
    splits, images = image_splits(1, 28)
    fit = fitted(splits, target.info)
    assert (fit.info.channels, fit.info.image_size) == (3, 8)
    (batch,) = fit.test.serve(eval_draws(3, batch_size=3))
    wanted = F.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(batch["inputs"], torch.cat([wanted] * 3, dim=1))
    assert len(fit.train) == 3
    assert batch["labels"].tolist() == [0, 0, 0]


def test_images_that_fit_are_left_alone():
    splits, _ = image_splits(3, 8)
    assert fitted(splits, splits.info) is splits


def test_colour_images_do_not_fit_a_grey_target():
    target, _ = image_splits(1, 8)
    with pytest.raises(ValueError, match="its images have 3 channels, the target's 1; take images with 1"):
        fitted(image_splits(3, 8)[0], target.info)
