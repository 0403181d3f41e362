"""The official CIFAR files, in their binary and their python layout (https://www.cs.toronto.edu/~kriz/cifar.html)."""

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruneexp.datasets.images import Pixels

LOG = logging.getLogger("pruneexp")

_IMAGE_BYTES = 3 * 32 * 32  # red, green and blue planes, row by row


def read_binary(path: Path, *, label_bytes: int) -> Pixels:
    """The records of a .bin file: the label bytes, the last of which is the class, then the image.

    Raises:
        ValueError: the file is not a whole number of records.
    """
    data, record = np.fromfile(path, dtype=np.uint8), label_bytes + _IMAGE_BYTES
    if len(data) == 0 or len(data) % record:
        raise ValueError(
            f"dataset.root: {path} has {len(data)} bytes, not a multiple of {record}; it is damaged, fetch it again"
        )
    records = data.reshape(-1, record)
    return _pixels(records[:, label_bytes:], records[:, label_bytes - 1])


def read_python(path: Path, *, label_key: str, official: Mapping[str, tuple[int, str]] | None = None) -> Pixels:
    """The examples of a pickled batch, read without running any code that a pickle may hold.

    label_key: of the classes in the batch, "labels" or "fine_labels". official: file name -> examples and MD5 of the
    authors' file; a warning says if one of that name and size has another MD5.

    Raises:
        ValueError: the file is not such a batch, or holds anything but arrays and builtins.
    """
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()  # written by Python 2
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        images, labels = np.asarray(batch["data"], dtype=np.uint8), np.asarray(batch[label_key], dtype=np.int64)
        images = images.reshape(len(labels), _IMAGE_BYTES)
        if not len(labels):
            raise ValueError("it holds no example")
    except Exception as error:  # damaged pickles raise nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"dataset.root: {path} is no CIFAR batch ({reason}); fetch it again") from error
    examples, expected = (official or {}).get(path.name, (None, None))
    if examples == len(labels) and hashlib.md5(path.read_bytes()).hexdigest() != expected:
        LOG.warning("dataset.root: %s is damaged or written anew: it has not the checksum of the authors' file", path)
    return _pixels(images, labels)


def concatenate(parts: list[Pixels]) -> Pixels:
    """One set of examples, in the order of `parts`."""
    return Pixels(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _pixels(images: np.ndarray, labels: np.ndarray) -> Pixels:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).view(-1, 3, 32, 32)
    return Pixels(pixels, torch.from_numpy(labels.astype(np.int64)))


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and builtin containers; any other name in the pickle is an error."""

    def find_class(self, module: str, name: str) -> Any:
        array = np.empty(0)
        allowed = {
            "_reconstruct": array.__reduce__()[0],  # numpy moved these between versions, so ask numpy where they are
            "_frombuffer": array.__reduce_ex__(5)[0],
            "ndarray": np.ndarray,
            "dtype": np.dtype,
        }
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode_latin1
        if module.split(".", maxsplit=1)[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return allowed[name]


def _encode_latin1(text: str, codec: str) -> bytes:
    return text.encode("latin1")
