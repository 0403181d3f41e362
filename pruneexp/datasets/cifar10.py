"""CIFAR-10: 50,000 + 10,000 colour images of 32 x 32 pixels in 10 classes (Krizhevsky 2009)."""

from pathlib import Path

from pruneexp.datasets.cifar import concatenate, read_binary, read_python
from pruneexp.datasets.images import Pixels
from pruneexp.datasets.official import Layout, OfficialImages

_OFFICIAL = {  # examples and MD5, as torchvision.datasets.CIFAR10 lists them
    "data_batch_1": (10_000, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": (10_000, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": (10_000, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": (10_000, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": (10_000, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": (10_000, "40351d587109b95175f43aff81a1287e"),
}


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
                read_binary(path, label_bytes=1)
                if path.suffix == ".bin"
                else read_python(path, label_key="labels", official=_OFFICIAL)
                for path in paths
            ]
        )
