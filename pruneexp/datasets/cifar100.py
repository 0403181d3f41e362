"""CIFAR-100: 50,000 + 10,000 colour images of 32 x 32 pixels in 100 classes (Krizhevsky 2009)."""

from pathlib import Path

from pruneexp.datasets.cifar import read_binary, read_python
from pruneexp.datasets.images import Pixels
from pruneexp.datasets.official import Layout, OfficialImages

_FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

_OFFICIAL = {  # examples and MD5, as torchvision.datasets.CIFAR100 lists them
    "train": (50_000, "16019d7e3df5f24257cddd939b257f8d"),
    "test": (10_000, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
}


class Cifar100(OfficialImages):
    """CIFAR-100, the fine classes, from its python or its binary layout; a part of the training file will do."""

    channels = 3
    class_names = tuple(_FINE_CLASSES.split())
    layouts = (
        Layout("cifar-100-python", ("train",), ("test",)),
        Layout("cifar-100-binary", ("train.bin",), ("test.bin",)),
    )
    torchvision_name = "CIFAR100"

    def read_files(self, paths: list[Path]) -> Pixels:
        """The examples in `paths`, one file; see the base class. A binary record holds the coarse class first."""
        (path,) = paths
        if path.suffix == ".bin":
            return read_binary(path, label_bytes=2)
        return read_python(path, label_key="fine_labels", official=_OFFICIAL)
