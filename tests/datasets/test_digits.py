"""scikit-learn's digits."""

import torch
from sklearn.datasets import load_digits


def test_digits(make, cpu):
    dataset = make("digits")
    dataset.check()
    splits = dataset.load(device=cpu)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [1150, 287, 360]
    assert (splits.info.num_outputs, splits.info.channels, splits.info.image_size) == (10, 1, 8)
    wanted = load_digits().target.size / 5 * torch.from_numpy(load_digits().target).bincount() / 1797
    assert (splits.test.labels.bincount() - wanted).abs().max() <= 1
    images = torch.cat([split._images for split in (splits.train, splits.validation, splits.test)])
    found = sorted(images.flatten(1).tolist())
    assert found == sorted((load_digits().images.reshape(-1, 64) * 15.9375).round().astype(int).tolist())
    whole = torch.cat([split._normalize(split._images) for split in (splits.train, splits.validation, splits.test)])
    assert abs(whole.mean()) < 1e-3  # the numbers in the config are those of the data
    assert abs(whole.std() - 1) < 1e-3


def test_the_test_part_is_the_same_whatever_the_split(make, cpu):
    first, second = (make("digits", split_seed=seed).load(device=cpu) for seed in (0, 1))
    assert torch.equal(first.test._images, second.test._images)
    assert not torch.equal(first.validation._images, second.validation._images)
