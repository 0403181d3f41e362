"""Image files, decoded and augmented by worker processes as they are needed."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruneexp.datasets.base import Batch, Draw, Split
from pruneexp.datasets.images import Normalize
from pruneexp.datasets.seeds import mixed

_DEEP_MODES = ("I", "F")
"""Of images with 16 or 32 bits a pixel, floats too, as PIL names them. It would clip them to 255."""


class ImageFiles(torch.utils.data.Dataset):
    """(position, seed) -> the image there, uint8 (3, size, size): cropped at random if there is a seed.

    Of a broken file comes the error message, a string: what a worker raises arrives under a traceback, in a reference
    cycle that keeps the worker alive.
    """

    def __init__(self, paths: list[str], *, image_size: int, resize: int, min_crop_area: float, flip: bool) -> None:
        """image_size, resize: pixels. min_crop_area: fraction of the image that a random crop covers at least."""
        from torchvision.transforms import v2

        self._paths = np.array([os.fsencode(path) for path in paths])  # not a list: workers would copy its pages
        plain = [v2.Resize(resize), v2.CenterCrop(image_size), v2.PILToTensor()]
        crop = v2.RandomResizedCrop(image_size, scale=(min_crop_area, 1.0))
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        self._plain, self._random = v2.Compose(plain), v2.Compose([crop, *mirror, v2.PILToTensor()])

    def __getitem__(self, key: tuple[int, int | None]) -> Tensor | str:
        from PIL import Image

        position, seed = key
        path = os.fsdecode(self._paths[position])
        try:
            with Image.open(path) as file:
                if file.mode.startswith(_DEEP_MODES):
                    return f"dataset.root: {path} has {file.mode} pixels, not 8 bits each; convert it to 8 bits"
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # of a broken PNG: SyntaxError
            return f"dataset.root: {path} is no readable image; delete or replace it"
        if seed is None:
            return self._plain(image)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(seed)
            return self._random(image)


def _stack(images: list[Tensor | str]) -> Tensor | str:
    broken = [image for image in images if isinstance(image, str)]
    return broken[0] if broken else torch.stack(images)


class FolderSplit(Split):
    """Some of the images in `files`."""

    def __init__(
        self,
        files: ImageFiles,
        labels: Tensor,
        positions: Tensor,
        *,
        device: torch.device,
        normalize: Normalize,
        workers: int,
    ) -> None:
        """labels: of all files. positions: of this split's files. workers: processes; 0 decodes in this one."""
        self.labels = labels[positions]
        self._files, self._positions, self._device = files, positions, device
        self._normalize, self._workers = normalize, workers

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Float images and int64 labels."""
        under_way: deque[Draw] = deque()
        loader = torch.utils.data.DataLoader(
            self._files,
            batch_sampler=self._keys(draws, under_way),
            num_workers=self._workers,
            collate_fn=_stack,
            generator=torch.Generator(),  # or it would draw from the global one, which dropout uses
            pin_memory=self._device.type == "cuda",
        )
        for images in loader:
            if isinstance(images, str):
                raise ValueError(images)
            draw = under_way.popleft()
            labels = self.labels[draw.indices[draw.part]].to(self._device)
            batch = {"inputs": self._normalize(images.to(self._device, non_blocking=True)), "labels": labels}
            yield batch if draw.count is None else {**batch, "count": draw.count}

    def _keys(self, draws: Iterable[Draw], under_way: deque[Draw]) -> Iterator[list[tuple[int, int | None]]]:
        for draw in draws:
            under_way.append(draw)  # workers are ahead of the batch that is served
            indices = draw.indices[draw.part].tolist()
            positions = self._positions[indices].tolist()
            seeds = [None if draw.seed is None else mixed(draw.seed, index) for index in indices]
            yield list(zip(positions, seeds, strict=True))


def list_images(folder: Path) -> tuple[tuple[str, ...], list[str], Tensor]:
    """The classes (sorted folder names), the paths of all images in order, and their classes as int64.

    Raises:
        ValueError: there are fewer than two classes, or one without images.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        names, class_to_index = find_classes(folder)
        samples = make_dataset(folder, class_to_index, IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise ValueError(f"dataset.root: {str(error).splitlines()[0]}") from error
    if len(names) < 2:
        raise ValueError(
            f"dataset.root: only the class {names[0]} in {folder}; give one folder for each of two or more"
        )
    return tuple(names), [path for path, _ in samples], torch.tensor([index for _, index in samples])
