"""Images that fit in memory: uint8 tensors on the device, augmented and normalised there, a whole batch at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pruneexp.datasets.base import Batch, DataInfo, Draw, Split, Splits
from pruneexp.datasets.seeds import generator
from pruneexp.datasets.subsets import Subsets

_RESIZED_AT_ONCE = 1000  # images, to bound the memory


@dataclass(frozen=True)
class Pixels:
    """Images, uint8 (examples, channels, height, width), and their classes, int64 (examples,), on the CPU."""

    images: Tensor
    labels: Tensor


class Normalize:
    """uint8 images (batch, channels, height, width) -> float32, (image / 255 - mean) / std for each channel."""

    def __init__(self, *, mean: list[float], std: list[float], channels: int) -> None:
        for key, numbers in (("mean", mean), ("std", std)):
            if len(numbers) != channels:
                raise ValueError(
                    f"dataset.{key}={numbers}: {len(numbers)} numbers for {channels} channels; give {channels}"
                )
        if min(std) <= 0:
            raise ValueError(f"dataset.std={std}: give positive numbers")
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised images, on the device of `images`."""
        return (images.float() / 255 - self.mean.to(images.device)) / self.std.to(images.device)


def crop_and_flip(images: Tensor, draw: Draw, *, padding: int, flip: bool) -> Tensor:
    """`images` shifted by up to `padding` pixels each way, black where nothing is left, and half of them mirrored.

    images: uint8 (rows of draw.part, channels, height, width), on any device. Of the same shape comes the result.
    """
    height, width = images.shape[-2:]
    source, batch = generator(draw.seed), len(draw.indices)
    top, left = torch.randint(2 * padding + 1, (2, batch), generator=source)
    mirrored = torch.randint(2, (batch,), generator=source) if flip else torch.zeros_like(top)
    rows = top[draw.part, None] + torch.arange(height)
    columns = torch.where(mirrored[draw.part, None] == 1, torch.arange(width).flip(0), torch.arange(width))
    columns = columns + left[draw.part, None]
    padded = F.pad(images, (padding,) * 4).flatten(2)
    rows, columns = rows.to(images.device), columns.to(images.device)
    pixels = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).flatten(1)
    return padded.gather(2, pixels[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


class MemorySplit(Split):
    """Images on the device. Draws with a seed are augmented."""

    def __init__(self, pixels: Pixels, *, device: torch.device, normalize: Normalize, padding: int, flip: bool) -> None:
        """padding: pixels of the random crop. flip: mirror half of the images."""
        self.labels = pixels.labels
        self._images, self._labels_on_device = pixels.images.to(device), pixels.labels.to(device)
        self._normalize, self._padding, self._flip = normalize, padding, flip

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Float images and int64 labels."""
        for draw in draws:
            indices = draw.indices[draw.part].to(self._images.device)
            images = self._images[indices]
            if draw.seed is not None and (self._padding or self._flip):
                images = crop_and_flip(images, draw, padding=self._padding, flip=self._flip)
            batch = {"inputs": self._normalize(images), "labels": self._labels_on_device[indices]}
            yield batch if draw.count is None else {**batch, "count": draw.count}


class InMemory:
    """How sources of pixels become splits: the options that all such datasets share, as their configs explain them."""

    def __init__(
        self,
        *,
        channels: int,
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
        if random_crop_padding < 0:
            raise ValueError(f"dataset.random_crop_padding={random_crop_padding}: give 0 (off) or pixels")
        if image_size is not None and image_size < 1:
            raise ValueError(f"dataset.image_size={image_size}: give pixels a side, or null for the original size")
        self.subsets = Subsets(
            validation_fraction=validation_fraction, split_seed=split_seed, fraction=fraction, max_examples=max_examples
        )
        self.normalize = Normalize(mean=mean, std=std, channels=channels)
        self.padding, self.flip, self.image_size = random_crop_padding, flip, image_size

    def splits(self, sources: dict[str, Pixels], class_names: tuple[str, ...], device: torch.device) -> Splits:
        """The splits of the sources train and test, on `device`. class_names: of all classes."""
        parts = self.subsets.divide({name: pixels.labels for name, pixels in sources.items()})
        train = sources["train"].labels
        parts["train"] = "train", self.subsets.shorten(train, parts["train"][1])
        splits = {name: self._split(sources[source], positions, device) for name, (source, positions) in parts.items()}
        channels, original_size = sources["train"].images.shape[1:3]
        info = DataInfo(
            kind="image",
            num_outputs=len(class_names),
            metrics=("accuracy",),
            channels=channels,
            image_size=self.image_size or original_size,
            class_names=class_names,
        )
        return Splits(info=info, **splits)

    def _split(self, pixels: Pixels, positions: Tensor, device: torch.device) -> MemorySplit:
        images = pixels.images[positions]
        if self.image_size not in (None, images.shape[-1]):
            images = torch.cat([_resize(chunk, self.image_size) for chunk in images.split(_RESIZED_AT_ONCE)])
        chosen = Pixels(images, pixels.labels[positions])
        return MemorySplit(chosen, device=device, normalize=self.normalize, padding=self.padding, flip=self.flip)


def _resize(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
