"""What all text datasets share: sources of labelled texts become splits of encoded texts."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruneexp.datasets.base import DataInfo, Dataset, Splits
from pruneexp.datasets.subsets import Subsets
from pruneexp.datasets.tokens import TextSplit, encode


@dataclass(frozen=True)
class Texts:
    """Texts, or pairs of texts, and their labels: int64 classes or float32 values, (examples,)."""

    first: list[str]
    second: list[str] | None
    labels: Tensor

    def __getitem__(self, positions: Tensor) -> "Texts":
        chosen = positions.tolist()
        second = None if self.second is None else [self.second[i] for i in chosen]
        return Texts([self.first[i] for i in chosen], second, self.labels[positions])


class TextDataset(Dataset):
    """Labelled texts. A subclass says where they come from."""

    kind = "text"

    def __init__(
        self,
        *,
        max_length: int,
        pad_to: str,
        validation_fraction: float,
        split_seed: int,
        fraction: float | None,
        max_examples: int | None,
    ) -> None:
        if max_length < 1:
            raise ValueError(f"dataset.max_length={max_length}: give a number of tokens")
        if pad_to not in ("longest", "max_length"):
            raise ValueError(f"dataset.pad_to={pad_to}: give longest or max_length")
        self.max_length, self.pad_to = max_length, pad_to
        self.subsets = Subsets(
            validation_fraction=validation_fraction, split_seed=split_seed, fraction=fraction, max_examples=max_examples
        )

    @abstractmethod
    def read(self) -> tuple[dict[str, Texts], DataInfo]:
        """The sources train and, where there are such, validation and test (see `Subsets.divide`)."""

    def load(self, *, device: torch.device, tokenizer: Callable[[list[str]], Any] | None = None) -> Splits:
        """The splits; see the base class.

        The tokenizer is made from the whole training part, also when `fraction` shortens it: so a model with a
        vocabulary of its own has the same size however little data it is trained on.
        """
        assert tokenizer is not None, "text needs a tokenizer"
        sources, info = self.read()
        parts = self.subsets.divide({name: texts.labels for name, texts in sources.items()})
        train = sources["train"][parts["train"][1]]
        made = tokenizer(train.first + (train.second or []))
        parts["train"] = "train", self.subsets.shorten(sources["train"].labels, parts["train"][1])
        splits = {
            name: self._split(sources[source][positions], made, device) for name, (source, positions) in parts.items()
        }
        return Splits(info=info, **splits)

    def _split(self, texts: Texts, tokenizer: Any, device: torch.device) -> TextSplit:
        tokens = encode(tokenizer, texts.first, texts.second, max_length=self.max_length)
        return TextSplit(tokens, texts.labels, max_length=self.max_length, pad_to=self.pad_to, device=device)
