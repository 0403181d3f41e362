"""Any network of timm (Wightman 2019, "PyTorch Image Models"), fitted to the data, with or without its weights."""

import logging
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.checkpoints import read_state_dict
from pruneexp.models.errors import first_line, near
from pruneexp.models.hub import quiet_hub
from pruneexp.models.pretrained import FROM_FILE, load_pretrained
from pruneexp.models.stems import check_fit

logger = logging.getLogger("pruneexp")


class Timm(Model):
    """A network of timm, by name. It keeps its own first layers, also for small images."""

    kind = "image"

    def __init__(self, *, name: str, pretrained: bool | str | None, checkpoint: str | None) -> None:
        """Checks the arguments; downloads nothing.

        name: as in `timm.list_models()`, where wanted with a tag of weights after a dot
        (mobilenetv1_100.ra4_e3600_r224_in1k), or `hf-hub:<owner>/<repository>`. pretrained: true to start from the
        weights on the Hugging Face hub, or a file that has them; false or null for random weights.

        Raises:
            ValueError: no such name.
        """
        import timm

        super().__init__(checkpoint=checkpoint)
        architecture, _, tag = name.partition(".")
        if not name.startswith("hf-hub:") and not timm.is_model(architecture):
            raise ValueError(f"model.name={name}: timm has no such network; {near(architecture, timm.list_models())}")
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")] if tag else []
        if tag and not name.startswith("hf-hub:") and tag not in tags:
            raise ValueError(f"model.name={name}: {architecture} has no such weights; {near(tag, tags)}")
        if isinstance(pretrained, str) and not Path(pretrained).expanduser().is_file():
            raise ValueError(f"model.pretrained={pretrained}: no such file; give a file, or true for the hub's weights")
        self.name, self.pretrained = name, pretrained

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network. timm itself fits the first convolution's and the classifier's pretrained weights."""
        import timm

        from_hub = self.name.startswith("hf-hub:")
        download = pretrained and self.pretrained is True
        try:
            with quiet_hub(online=True) if download or from_hub else nullcontext():
                sizes = {"in_chans": info.channels, "num_classes": info.num_outputs}
                if getattr(timm.get_pretrained_cfg(self.name), "fixed_input_size", False):
                    sizes["img_size"] = info.image_size  # transformers, whose position embedding has a size
                network = timm.create_model(self.name, pretrained=download, **sizes)
        except (OSError, RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise ValueError(self._failure(download or from_hub, info, error)) from error
        classes = network.pretrained_cfg.get("num_classes")
        if download and classes != info.num_outputs:
            logger.info("classifier initialised anew: %s outputs instead of %s", info.num_outputs, classes)
        if pretrained and isinstance(self.pretrained, str):
            state = read_state_dict(Path(self.pretrained).expanduser(), key="model.pretrained")
            load_pretrained(network, state, f"model.pretrained={self.pretrained}")
        check_fit(network, info, self.name)
        return network

    def _failure(self, downloads: bool, info: DataInfo, error: Exception) -> str:
        """One line about a network that could not be made."""
        if downloads and isinstance(error, OSError):
            return (
                f"model.name={self.name}: cannot be downloaded from the Hugging Face hub ({first_line(error)}); get "
                f"the weights elsewhere and {FROM_FILE}"
            )
        size = f"{info.channels}x{info.image_size}x{info.image_size}"
        return f"model.name={self.name}: cannot be built for images of {size} ({first_line(error)}); choose another"
