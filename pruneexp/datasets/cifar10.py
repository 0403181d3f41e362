"""CIFAR-10: 50,000 + 10,000 colour images of 32 x 32 pixels in 10 classes (Krizhevsky 2009)."""

from pathlib import Path

from pruneexp.datasets.cifar import concatenate, read_binary, read_python
from pruneexp.datasets.images import Pixels
from pruneexp.datasets.official import Layout, OfficialImages


class Cifar10(OfficialImages):
    """CIFAR-10 from its python or its binary layout."""

    channels = 3
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    layouts = (
        Layout("cifar-10-batches-py", tuple(f"data_batch_{k}" for k in range(1, 6)), ("test_batch",)),
        Layout("cifar-10-batches-bin", tuple(f"data_batch_{k}.bin" for k in range(1, 6)), ("test_batch.bin",)),
    )
    torchvision_name = "CIFAR10"

    def read_files(self, paths: list[Path]) -> Pixels:
        """The examples in `paths`; see the base class."""
        return concatenate(
            [
                read_binary(path, label_bytes=1) if path.suffix == ".bin" else read_python(path, label_key="labels")
                for path in paths
            ]
        )
