"""Any classification network of torchvision, fitted to the data, with or without its ImageNet weights.

ResNets: He et al. 2016 (arXiv:1512.03385). MobileNet-v2: Sandler et al. 2018 (arXiv:1801.04381). MobileNet-v3: Howard
et al. 2019 (arXiv:1905.02244).
"""

import pickle
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.checkpoints import read_state_dict
from pruneexp.models.errors import first_line, near
from pruneexp.models.pretrained import FROM_FILE, load_pretrained
from pruneexp.models.stems import (
    check_fit,
    check_stem,
    choose_stem,
    set_input_channels_,
    small_mobilenet_stem_,
    small_resnet_stem_,
)

SMALL_STEMS = {
    "resnet": small_resnet_stem_,
    "resnext": small_resnet_stem_,
    "wide_resnet": small_resnet_stem_,
    "mobilenet_v2": small_mobilenet_stem_,
    "mobilenet_v3": small_mobilenet_stem_,
}
"""Start of the name -> how such a network is changed for small images."""


class Torchvision(Model):
    """A network of torchvision, by name."""

    kind = "image"

    def __init__(self, *, name: str, pretrained: bool | str | None, stem: str, checkpoint: str | None) -> None:
        """Checks the arguments; downloads nothing.

        name: as in `torchvision.models.list_models()`. pretrained: false or null for random weights, true for
        torchvision's default ones, the name of some, such as IMAGENET1K_V1, or a file that has them. stem: see
        `pruneexp.models.stems`.

        Raises:
            ValueError: no such name, weights or stem.
        """
        import torchvision

        super().__init__(checkpoint=checkpoint)
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise ValueError(f"model.name={name}: torchvision has no such network; {near(name, known)}")
        check_stem(stem)
        if stem == "small" and self._small_stem(name) is None:
            raise ValueError(
                f"model.stem=small: there is none for {name}; set model.stem=imagenet or choose a ResNet or MobileNet"
            )
        self.name, self.stem, self.pretrained = name, stem, pretrained
        self.weights = _weights(name, pretrained) if pretrained else None  # a file, or an entry of an enumeration

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network. What of the pretrained weights does not fit is initialised anew, which the log says."""
        import torchvision

        network = torchvision.models.get_model(self.name, weights=None, num_classes=info.num_outputs)
        small_stem = self._small_stem(self.name)
        if small_stem is not None and choose_stem(self.stem, info) == "small":
            small_stem(network)
        set_input_channels_(network, info.channels)
        if pretrained and self.weights is not None:
            load_pretrained(network, self._state_dict(), f"model.pretrained={self.pretrained}")
        check_fit(network, info, self.name)
        return network

    def _state_dict(self) -> dict[str, Tensor]:
        """The pretrained weights, from the file, the cache or the network."""
        if isinstance(self.weights, Path):
            return read_state_dict(self.weights, key="model.pretrained")
        try:
            return self.weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network; another hash; code in the cache
            raise ValueError(
                f"model.pretrained={self.pretrained}: {self.weights.url} cannot be downloaded ({first_line(error)}); "
                f"get it elsewhere and {FROM_FILE}"
            ) from error

    @staticmethod
    def _small_stem(name: str) -> Any:
        """The function that gives such a network a stem for small images, or None."""
        return next((change for start, change in SMALL_STEMS.items() if name.startswith(start)), None)


def _weights(name: str, pretrained: bool | str) -> Any:
    """The file, or the entry in torchvision's enumeration of weights for this network."""
    import torchvision

    if isinstance(pretrained, str) and (file := Path(pretrained).expanduser()).is_file():
        return file
    choices = torchvision.models.get_model_weights(name)
    wanted = "DEFAULT" if pretrained is True else pretrained
    if wanted not in choices.__members__:
        known = [*choices.__members__]
        raise ValueError(
            f"model.pretrained={wanted}: {name} has no such weights; {near(wanted, known)}; or give a file"
        )
    return choices[wanted]
