"""Images as another dataset's network wants them: resized, grey ones as colour."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from pruneexp.datasets.base import Batch, DataInfo, Draw, Split, Splits


def fitted(splits: Splits, target: DataInfo) -> Splits:
    """The splits with images of the size and the channels of `target`'s; texts as they are.

    Raises:
        ValueError: the images are in colour and the target's are grey.
    """
    info = splits.info
    if info.kind != "image" or (info.channels, info.image_size) == (target.channels, target.image_size):
        return splits
    if info.channels not in (1, target.channels):
        wanted = " or ".join(sorted({"1", str(target.channels)}))
        raise ValueError(
            f"its images have {info.channels} channels, the target's {target.channels}; take images with {wanted}"
        )
    served = {name: Fitted(getattr(splits, name), target) for name in ("train", "validation", "test")}
    return Splits(info=replace(info, channels=target.channels, image_size=target.image_size), **served)


class Fitted(Split):
    """A split whose images are served in the size and the channels of `target`."""

    def __init__(self, split: Split, target: DataInfo) -> None:
        self.labels = split.labels
        self._split, self._channels, self._size = split, target.channels, target.image_size

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """The split's batches, in the order drawn."""
        for batch in self._split.serve(draws):
            yield {**batch, "inputs": self._fit(batch["inputs"])}

    def _fit(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self._size:
            images = F.interpolate(images, size=(self._size, self._size), mode="bilinear", antialias=True)
        return images.expand(-1, self._channels, -1, -1)
