"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels in 10 classes.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998). There is
no official split here, so a fixed fifth is the test part; `validation_fraction` is of the rest.
"""

from collections.abc import Callable
from typing import Any

import torch

from pruneexp.datasets.base import Dataset, Splits
from pruneexp.datasets.images import InMemory, Pixels
from pruneexp.datasets.seeds import TEST
from pruneexp.datasets.subsets import stratified_order

_TEST_EXAMPLES = 360  # a fifth
_TEST_SEED = 0  # not `split_seed`: whatever the split, the test examples are the same
_WHITE = 16  # the largest pixel value in the files
_CLASSES = tuple("0123456789")


class Digits(Dataset):
    """scikit-learn's digits. They need no file and no network."""

    kind = "image"

    def __init__(
        self,
        *,
        validation_fraction: float,
        split_seed: int,
        fraction: float | None,
        max_examples: int | None,
        mean: list[float],
        std: list[float],
        random_crop_padding: int,
        flip: bool,
        image_size: int | None,
    ) -> None:
        self.in_memory = InMemory(
            channels=1,
            validation_fraction=validation_fraction,
            split_seed=split_seed,
            fraction=fraction,
            max_examples=max_examples,
            mean=mean,
            std=std,
            random_crop_padding=random_crop_padding,
            flip=flip,
            image_size=image_size,
        )

    def check(self) -> None:
        """Returns at once: nothing can be missing."""

    def load(self, *, device: torch.device, tokenizer: Callable[[list[str]], Any] | None = None) -> Splits:
        """The splits, on `device`; see the base class."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / _WHITE).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        order = stratified_order(labels, TEST, _TEST_SEED)
        parts = {"train": order[_TEST_EXAMPLES:].sort().values, "test": order[:_TEST_EXAMPLES].sort().values}
        sources = {name: Pixels(images[part], labels[part]) for name, part in parts.items()}
        return self.in_memory.splits(sources, _CLASSES, device)
