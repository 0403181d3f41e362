"""Images in memory: normalised, cropped and mirrored as written out by hand, alike on one process and on many."""

import pytest
import torch

from pruneexp.datasets.base import Draw
from pruneexp.datasets.images import MemorySplit, Normalize, Pixels, crop_and_flip
from pruneexp.datasets.order import eval_draws, train_draws

CPU = torch.device("cpu")


def pixels(n=12, channels=3, size=5):
    images = torch.randint(1, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(0))
    return Pixels(images.to(torch.uint8), torch.arange(n) % 4)


def split(padding=2, flip=True):
    normalize = Normalize(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5], channels=3)
    return MemorySplit(pixels(), device=CPU, normalize=normalize, padding=padding, flip=flip)


def test_normalize():
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    out = Normalize(mean=[0.5, 0.2], std=[0.25, 0.1], channels=2)(images)
    torch.testing.assert_close(out, torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]]))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5, 0.5], "dataset.mean=.* 1 numbers for 2"),
        ([0.5, 0.5], [0.5], "dataset.std"),
        ([0.5] * 2, [0.5, 0.0], "std"),
    ],
)
def test_normalize_refuses(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean=mean, std=std, channels=2)


def shifted_or_mirrored(image, padding):
    """Every crop of the padded image and its mirror image, by plain slicing."""
    height, width = image.shape[-2:]
    canvas = torch.zeros(image.shape[0], height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    canvas[:, padding : padding + height, padding : padding + width] = image
    shifts = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    crops = [canvas[:, top : top + height, left : left + width] for top, left in shifts]
    return crops, [crop.flip(-1) for crop in crops]


def test_augmented_images_are_crops_and_half_of_them_mirrored():
    image = pixels(1).images[0]
    draw = Draw(torch.zeros(2000, dtype=torch.int64), slice(0, 2000), seed=3)
    out = crop_and_flip(image.expand(2000, -1, -1, -1), draw, padding=1, flip=True)
    crops, mirrored = shifted_or_mirrored(image, 1)
    counts = [sum(torch.equal(row, wanted) for row in out) for wanted in crops + mirrored]
    assert sum(counts) == 2000
    assert min(counts) > 70  # 111 each on average
    assert 900 < sum(counts[:9]) < 1100


def test_without_flip_and_padding_nothing_changes():
    images = pixels().images
    draw = Draw(torch.arange(12), slice(0, 12), seed=3)
    assert torch.equal(crop_and_flip(images, draw, padding=0, flip=False), images)
    crops = crop_and_flip(images, draw, padding=1, flip=False)
    for image, crop in zip(images, crops, strict=True):
        assert any(torch.equal(crop, wanted) for wanted in shifted_or_mirrored(image, 1)[0])


def test_serving_evaluation_draws_is_plain_and_in_order():
    batches = list(split().serve(eval_draws(12, batch_size=5)))
    assert [batch["count"] for batch in batches] == [5, 5, 2]
    inputs = torch.cat([batch["inputs"][: batch["count"]] for batch in batches])
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.5]).view(3, 1, 1)
    torch.testing.assert_close(inputs, (pixels().images / 255 - mean) / std)
    assert torch.cat([batch["labels"][: batch["count"]] for batch in batches]).tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("world_size", [2, 3])
def test_training_images_are_the_same_on_many_processes(world_size):
    def serve(**ranks):
        return list(split().serve(train_draws(12, batch_size=6, seed=5, first_step=0, last_step=4, **ranks)))

    alone = serve()
    ranks = [serve(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        assert "count" not in batch
        for key in ("inputs", "labels"):
            assert torch.equal(torch.cat([rank[step][key] for rank in ranks]), batch[key])
    assert not torch.equal(alone[0]["inputs"].sort(0).values, alone[2]["inputs"].sort(0).values)  # augmented afresh


def test_augmentation_leaves_the_global_generator_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    list(split().serve(train_draws(12, batch_size=6, seed=5, first_step=0, last_step=2)))
    assert torch.equal(torch.random.get_rng_state(), before)
