"""Image files in one folder per class: ImageNet, or your own images.

`root` holds train/ and any of validation/ (or val/) and test/; each holds one folder per class. As for ImageNet, whose
test labels are not public, val/ is the part to report where there is no test/, and validation is carved out of train/.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pruneexp.datasets.base import DataInfo, Dataset, Splits
from pruneexp.datasets.image_files import FolderSplit, ImageFiles, list_images
from pruneexp.datasets.images import Normalize
from pruneexp.datasets.subsets import Subsets

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_CHANNELS = 3  # grey files are read as colour


class ImageFolder(Dataset):
    """Such a folder of image files."""

    kind = "image"

    def __init__(
        self,
        *,
        root: str | None,
        validation_fraction: float,
        split_seed: int,
        fraction: float | None,
        max_examples: int | None,
        mean: list[float],
        std: list[float],
        image_size: int,
        resize: int,
        min_crop_area: float,
        flip: bool,
        workers: int,
    ) -> None:
        if not 1 <= image_size <= resize:
            raise ValueError(f"dataset.image_size={image_size}: give pixels, at most dataset.resize={resize}")
        if not 0 < min_crop_area <= 1:
            raise ValueError(f"dataset.min_crop_area={min_crop_area}: give a fraction of the image, above 0, at most 1")
        if workers < 0:
            raise ValueError(f"dataset.workers={workers}: give 0 or a number of processes")
        self.root = None if root is None else Path(root).expanduser()
        self.subsets = Subsets(
            validation_fraction=validation_fraction, split_seed=split_seed, fraction=fraction, max_examples=max_examples
        )
        self.normalize = Normalize(mean=mean, std=std, channels=_CHANNELS)
        self.files = {"image_size": image_size, "resize": resize, "min_crop_area": min_crop_area, "flip": flip}
        self.image_size, self.workers = image_size, workers

    def check(self) -> None:
        """Raises ValueError if the folders are not there."""
        if self.root is None:
            raise ValueError(
                "dataset.root=null: give the folder that holds train/ and val/, one folder per class in each"
            )
        if "train" not in self._folders():
            raise ValueError(
                f"dataset.root={self.root}: no folder train/ there; give the folder that holds train/ and val/"
            )

    def load(self, *, device: torch.device, tokenizer: Callable[[list[str]], Any] | None = None) -> Splits:
        """The splits; lists the files and reads none."""
        listed = {name: list_images(folder) for name, folder in self._folders().items()}
        names = listed["train"][0]
        for source, (found, _, _) in listed.items():
            if found != names:
                odd = sorted(set(found) ^ set(names))[0]
                raise ValueError(
                    f"dataset.root={self.root}: class {odd} is not in both train and {source}; make them agree"
                )
        labels = {source: of_source for source, (_, _, of_source) in listed.items()}
        parts = self.subsets.divide(labels)
        parts["train"] = "train", self.subsets.shorten(labels["train"], parts["train"][1])
        files = {source: ImageFiles(paths, **self.files) for source, (_, paths, _) in listed.items()}
        splits = {
            name: FolderSplit(
                files[source], labels[source], positions, device=device, normalize=self.normalize, workers=self.workers
            )
            for name, (source, positions) in parts.items()
        }
        info = DataInfo(
            kind=self.kind,
            num_outputs=len(names),
            metrics=("accuracy",),
            channels=_CHANNELS,
            image_size=self.image_size,
            class_names=names,
        )
        return Splits(info=info, **splits)

    def _folders(self) -> dict[str, Path]:
        found = {}
        for source, names in _FOLDERS.items():
            folders = [self.root / name for name in names if (self.root / name).is_dir()]
            if folders:
                found[source] = folders[0]
        return found
