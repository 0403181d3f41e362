"""Image datasets that people have as the official files of their authors, or that torchvision downloads."""

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pruneexp.datasets.base import Dataset, Splits
from pruneexp.datasets.images import InMemory, Pixels


@dataclass(frozen=True)
class Layout:
    """File names, relative to `root` or to `root`/`folder`."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    def missing(self, folder: Path) -> list[str]:
        """The files that are not in `folder`."""
        return [name for name in (*self.train, *self.test) if not (folder / name).is_file()]


class OfficialImages(Dataset):
    """Images that fit in memory, read from official files. A subclass names the files and reads them."""

    kind = "image"
    channels: ClassVar[int]
    class_names: ClassVar[tuple[str, ...]]
    layouts: ClassVar[tuple[Layout, ...]]  # the first that is complete is read
    torchvision_name: ClassVar[str]  # of the class in torchvision.datasets that downloads it

    def __init__(
        self,
        *,
        root: str | None,
        download: bool,
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
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "pruneexp"
        self.root, self.download = Path(root or cache).expanduser(), download
        self.in_memory = InMemory(
            channels=self.channels,
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

    @abstractmethod
    def read_files(self, paths: list[Path]) -> Pixels:
        """The examples in `paths`, the files of a layout's train or test.

        Raises:
            ValueError: a file is damaged.
        """

    def check(self) -> None:
        """Raises ValueError if no layout is complete, unless the files may be downloaded."""
        if not self.download:
            self._find()

    def load(self, *, device: torch.device, tokenizer: Callable[[list[str]], Any] | None = None) -> Splits:
        """The splits, on `device`; see the base class."""
        folder, layout = self._find_or_download()
        sources = {name: self._read(folder, files) for name, files in (("train", layout.train), ("test", layout.test))}
        return self.in_memory.splits(sources, self.class_names, device)

    def _read(self, folder: Path, files: tuple[str, ...]) -> Pixels:
        pixels = self.read_files([folder / file for file in files])
        top, classes = int(pixels.labels.max()), len(self.class_names)
        if top >= classes:
            raise ValueError(f"dataset.root={folder}: {files[0]} has label {top}, beyond {classes - 1}; fetch it again")
        return pixels

    def _find(self) -> tuple[Path, Layout]:
        names = " or ".join(dict.fromkeys(layout.folder for layout in self.layouts))
        remedy = f"give the folder that holds {names}, or set dataset.download=true"
        if not self.root.is_dir():
            raise ValueError(f"dataset.root={self.root}: no folder there; {remedy}")
        candidates = [(folder, layout) for layout in self.layouts for folder in (self.root, self.root / layout.folder)]
        for folder, layout in candidates:
            missing = layout.missing(folder)
            if not missing:
                return folder, layout
        for folder, layout in candidates:
            missing = layout.missing(folder)
            if len(missing) < len(layout.train) + len(layout.test):
                raise ValueError(f"dataset.root={self.root}: {folder} lacks {', '.join(missing)}; {remedy}")
        raise ValueError(f"dataset.root={self.root}: no {names} there; {remedy}")

    def _find_or_download(self) -> tuple[Path, Layout]:
        try:
            return self._find()
        except ValueError:
            if not self.download:
                raise
        import torchvision

        try:
            getattr(torchvision.datasets, self.torchvision_name)(str(self.root), download=True)
        except (OSError, RuntimeError) as error:  # no network is an OSError, a wrong checksum a RuntimeError
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"dataset.download=true: {reason}; fetch the files by hand and give dataset.root"
            ) from error
        return self._find()
