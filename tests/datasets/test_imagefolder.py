"""Folders of image files: which part is which, what the model sees, and errors."""

import numpy as np
import pytest
import torch
from PIL import Image

from pruneexp.datasets.order import eval_draws, train_draws

SMALL = {"image_size": 8, "resize": 10, "workers": 0, "validation_fraction": 0.25, "mean": [0.0] * 3, "std": [1.0] * 3}


def save(path, colour, size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(colour)).integers(0, 20, (size[1], size[0], 3))
    Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for source, count in (("train", 8), ("val", 3)):
        for k in range(count):
            save(tmp_path / source / "cat" / f"{k}.png", (200, 10 * k, 0))
            save(tmp_path / source / "dog" / f"{k}.png", (0, 10 * k, 200))
    return tmp_path


def test_val_is_reported_and_validation_carved_out_of_train(make, cpu, root):
    dataset = make("imagenet", root=str(root), **SMALL)
    dataset.check()
    splits = dataset.load(device=cpu)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 4, 6]
    assert splits.info.class_names == ("cat", "dog")
    assert (splits.info.num_outputs, splits.info.channels, splits.info.image_size) == (2, 3, 8)
    assert splits.validation.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("folders", "sizes"),
    [(["train"], [6, 4, 4]), (["train", "test"], [10, 4, 6]), (["train", "validation", "test"], [14, 6, 6])],
)
def test_which_part_is_which(make, cpu, tmp_path, folders, sizes):
    for source in folders:
        for k in range(7 if source == "train" else 3):
            save(tmp_path / source / "a" / f"{k}.png", (0, 0, 0))
            save(tmp_path / source / "b" / f"{k}.png", (0, 0, 0))
    splits = make("imagefolder", root=str(tmp_path), **SMALL).load(device=cpu)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == sizes


def test_evaluation_sees_the_centre_of_the_resized_image(make, cpu, root):
    path = root / "val" / "cat" / "1.png"
    save(path, (100, 50, 0), size=(40, 20))
    splits = make("imagefolder", root=str(root), **(SMALL | {"std": [0.5] * 3})).load(device=cpu)
    batches = list(splits.test.serve(eval_draws(6, batch_size=4)))
    assert [batch["count"] for batch in batches] == [4, 2]
    halved = Image.open(path).resize((20, 10), Image.Resampling.BILINEAR)
    wanted = torch.from_numpy(np.array(halved.crop((6, 1, 14, 9)))).permute(2, 0, 1) / 255 / 0.5
    torch.testing.assert_close(batches[0]["inputs"][1], wanted)


def train(make, cpu, root, *, steps=(0, 4), **changes):
    ranks = {key: changes.pop(key) for key in ("rank", "world_size") if key in changes}
    split = make("imagefolder", root=str(root), **(SMALL | changes)).load(device=cpu).train
    draws = train_draws(len(split), batch_size=6, seed=1, first_step=steps[0], last_step=steps[1], **ranks)
    return list(split.serve(draws))


def test_training_images_are_augmented_afresh_each_epoch(make, cpu, root):
    batches = train(make, cpu, root)
    first, second = (torch.cat([batch["inputs"] for batch in part]) for part in (batches[:2], batches[2:]))
    assert first.shape == (12, 3, 8, 8)
    assert "count" not in batches[0]
    seen = {tuple(image.flatten().tolist()) for image in torch.cat([first, second])}
    assert len(seen) == 24
    by_colour = torch.cat([batch["inputs"] for batch in batches]).mean((2, 3))
    labels = torch.cat([batch["labels"] for batch in batches])
    assert torch.equal((by_colour[:, 2] > by_colour[:, 0]).long(), labels)  # dogs are blue


@pytest.mark.parametrize("world_size", [2, 3])
def test_augmentation_depends_neither_on_processes_nor_on_the_first_step(make, cpu, root, world_size):
    alone = train(make, cpu, root)
    ranks = [train(make, cpu, root, steps=(1, 4), rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (1, 2, 3):
        together = torch.cat([rank[step - 1]["inputs"] for rank in ranks])
        assert torch.equal(together, alone[step]["inputs"])


@pytest.mark.slow
def test_augmentation_does_not_depend_on_workers(make, cpu, root):
    alone, helped = train(make, cpu, root), train(make, cpu, root, workers=2)
    assert len(alone) == len(helped) == 4
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["inputs"], b["inputs"])
        assert torch.equal(a["labels"], b["labels"])


def test_equal_images_in_a_batch_are_cropped_differently(make, cpu, tmp_path):
    for k in range(4):
        for name in ("cat", "dog"):
            save(tmp_path / "train" / name / f"{k}.png", (90, 90, 90))
    (batch,) = train(make, cpu, tmp_path, steps=(0, 1))
    assert len({tuple(image.flatten().tolist()) for image in batch["inputs"]}) == len(batch["inputs"])


def test_augmentation_leaves_the_global_generator_alone(make, cpu, root):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    train(make, cpu, root)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_colour_modes_are_read_as_colour(make, cpu, root, mode):
    Image.new(mode, (12, 12)).save(root / "val" / "cat" / "0.png")
    (batch,) = make("imagefolder", root=str(root), **SMALL).load(device=cpu).test.serve(eval_draws(6, batch_size=6))
    assert batch["inputs"][0].shape == (3, 8, 8)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_broken_image_is_named_in_one_line(make, cpu, root, workers):
    broken = root / "val" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    splits = make("imagefolder", root=str(root), **(SMALL | {"workers": workers})).load(device=cpu)
    with pytest.raises(ValueError, match=f"^dataset.root: {broken} is no readable image; [^\n]*$"):
        list(splits.test.serve(eval_draws(6, batch_size=6)))


def test_errors_of_check(make, tmp_path):
    with pytest.raises(ValueError, match=r"dataset.root=null: give the folder that holds train/ and val/"):
        make("imagenet").check()
    with pytest.raises(ValueError, match=r"dataset.root=.*: no folder train/ there"):
        make("imagenet", root=str(tmp_path)).check()


def test_classes_that_do_not_agree(make, cpu, root):
    save(root / "val" / "eel" / "0.png", (0, 0, 0))
    with pytest.raises(ValueError, match="class eel is not in both train and validation"):
        make("imagefolder", root=str(root), **SMALL).load(device=cpu)


def test_an_empty_class(make, cpu, root):
    (root / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"dataset.root: .*eel"):
        make("imagefolder", root=str(root), **SMALL).load(device=cpu)


def test_a_single_class(make, cpu, tmp_path):
    save(tmp_path / "train" / "cat" / "0.png", (0, 0, 0))
    with pytest.raises(ValueError, match="only the class cat"):
        make("imagefolder", root=str(tmp_path), **SMALL).load(device=cpu)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 300}, "dataset.image_size=300: give pixels, at most dataset.resize=256"),
        ({"min_crop_area": 0.0}, "dataset.min_crop_area=0.0"),
        ({"workers": -1}, "dataset.workers=-1"),
    ],
)
def test_impossible_options(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make("imagefolder", **changes)
