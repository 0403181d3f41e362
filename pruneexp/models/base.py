"""What a model recipe is: something that builds a plain `nn.Module` for a dataset."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.checkpoints import load_weights


class Model(ABC):
    """A recipe for a network. Construction is cheap and checks the arguments; `build` makes the network."""

    kind: ClassVar[str]  # "image" or "text", as `Dataset.kind`

    def __init__(self, *, checkpoint: str | None) -> None:
        """checkpoint: a state dict to load after building (.safetensors, .pt, .pth, .th, .bin).

        Raises:
            ValueError: there is no such file.
        """
        if checkpoint is not None and not Path(checkpoint).expanduser().is_file():
            raise ValueError(
                f"model.checkpoint={checkpoint}: no such file; give a .safetensors, .pt, .pth, .th or .bin file"
            )
        self.checkpoint = checkpoint
        self._tokenizer: Any = None

    @abstractmethod
    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network for such data, in train mode, on the CPU.

        pretrained: with the pretrained weights that the recipe names, if it names any; False gives the same shapes
        with random weights and downloads none, for a caller who has other weights for it.

        Raises:
            ValueError: the network does not fit the data, or pretrained weights cannot be had.
        """

    def build(self, info: DataInfo) -> nn.Module:
        """`network(info)` with the checkpoint loaded into it."""
        network = self.network(info)
        if self.checkpoint is not None:
            load_weights(network, Path(self.checkpoint).expanduser())
        return network

    def tokenizer(self, texts: list[str]) -> Any:
        """A Hugging Face tokenizer for this model (text models only). `texts`: the training texts.

        Made once: the first texts decide, so that all datasets of a run are read with one vocabulary.
        """
        if self._tokenizer is None:
            self._tokenizer = self.new_tokenizer(texts)
        return self._tokenizer

    def new_tokenizer(self, texts: list[str]) -> Any:
        """What `tokenizer` returns at its first call; text models override it."""
        raise TypeError(f"{type(self).__name__} reads no text")

    def save_processor(self, folder: Path) -> None:
        """Writes the tokenizer, where one was made, into `folder`, for `model.tokenizer=<folder>` or AutoTokenizer."""
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(folder)
