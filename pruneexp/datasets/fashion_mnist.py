"""Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 pixels in 10 classes (Xiao et al. 2017, arXiv 1708.07747)."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from pruneexp.datasets.images import Pixels
from pruneexp.datasets.official import Layout, OfficialImages

_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class FashionMnist(OfficialImages):
    """Fashion-MNIST from its idx files, compressed or not."""

    channels = 1
    class_names = (
        "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
    )  # fmt: skip
    layouts = (
        Layout("FashionMNIST/raw", _TRAIN, _TEST),
        Layout("FashionMNIST/raw", tuple(f"{name}.gz" for name in _TRAIN), tuple(f"{name}.gz" for name in _TEST)),
    )
    torchvision_name = "FashionMNIST"

    def read_files(self, paths: list[Path]) -> Pixels:
        """The examples in `paths`, an image and a label file; see the base class."""
        images, labels = read_idx(paths[0], dimensions=3), read_idx(paths[1], dimensions=1)
        if len(images) != len(labels):
            raise ValueError(f"dataset.root: {paths[0]} has {len(images)} images and {paths[1]} {len(labels)} labels")
        return Pixels(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """The array in an idx file of unsigned bytes, plain or .gz.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions; each dimension's length, big endian,
    four bytes; the data (http://yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: the file is damaged or has another form.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"dataset.root: {path} cannot be unpacked ({error}); it is damaged, fetch it again") from error
    magic = bytes((0, 0, 8, dimensions))
    if data[:4] != magic:
        raise ValueError(
            f"dataset.root: {path} begins with {data[:4].hex()}, an idx file of this kind with {magic.hex()}"
        )
    header = 4 + 4 * dimensions
    shape = tuple(int(length) for length in np.frombuffer(data[4:header], dtype=">u4"))
    if len(shape) != dimensions or len(data) - header != np.prod(shape) or not len(data) > header:
        raise ValueError(
            f"dataset.root: {path} holds {len(data)} bytes, which do not fit its shape {shape}; fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()
