"""Texts as token ids: encoded once, padded batch by batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruneexp.datasets.base import Batch, Draw, Split

_ENCODED_AT_ONCE = 10_000  # texts, to bound the tokenizer's memory
_WIDTH_MULTIPLE = 8  # tensor cores want multiples of 8 half-precision numbers


@dataclass(frozen=True)
class Tokens:
    """Encoded texts, one after the other. Text i is `flat[key][starts[i] : starts[i] + lengths[i]]`.

    flat: input_ids, and token_type_ids if the tokenizer makes them -> int32 (all tokens,). starts, lengths: int64.
    padding: the value that fills each of `flat`'s rows up.
    """

    flat: dict[str, Tensor]
    starts: Tensor
    lengths: Tensor
    padding: dict[str, int]

    def padded(self, indices: Tensor, width: int) -> dict[str, Tensor]:
        """`flat`'s keys and attention_mask -> int64 (indices, width), filled up on the right."""
        columns = torch.arange(width)
        real = columns < self.lengths[indices, None]
        places = torch.where(real, self.starts[indices, None] + columns, 0)
        rows = {key: torch.where(real, ids[places].long(), self.padding[key]) for key, ids in self.flat.items()}
        return {**rows, "attention_mask": real.long()}


def encode(tokenizer: Any, texts: list[str], pairs: list[str] | None, *, max_length: int) -> Tokens:
    """The texts (or pairs of texts), each cut to `max_length` tokens in all.

    tokenizer: a Hugging Face tokenizer.

    Raises:
        ValueError: the tokenizer cannot pad, or takes fewer tokens.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("model: its tokenizer has no padding token; choose a model that was made for classification")
    if max_length > tokenizer.model_max_length:
        raise ValueError(
            f"dataset.max_length={max_length}: the model takes at most {tokenizer.model_max_length} tokens"
        )
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    chunks: dict[str, list[Tensor]] = {}
    lengths: list[int] = []
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        part = slice(start, start + _ENCODED_AT_ONCE)
        encoded = tokenizer(texts[part], pairs and pairs[part], truncation=True, max_length=max_length)
        lengths += [len(ids) for ids in encoded["input_ids"]]
        for key in [key for key in padding if key in encoded]:
            ids = [number for row in encoded[key] for number in row]
            chunks.setdefault(key, []).append(torch.tensor(ids, dtype=torch.int32))
    sizes = torch.tensor(lengths)
    return Tokens({key: torch.cat(parts) for key, parts in chunks.items()}, sizes.cumsum(0) - sizes, sizes, padding)


class TextSplit(Split):
    """Encoded texts and their labels."""

    def __init__(self, tokens: Tokens, labels: Tensor, *, max_length: int, pad_to: str, device: torch.device) -> None:
        """max_length: in tokens. pad_to: "longest" (of the batch) or "max_length"."""
        self.labels = labels
        self._tokens, self._max_length, self._pad_to, self._device = tokens, max_length, pad_to, device

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Token tensors and labels, in the order drawn."""
        for draw in draws:
            own = draw.indices[draw.part]
            # Of the whole global batch, so that a text is padded alike on one process and on many.
            width = self._width(draw.indices)
            inputs = {key: ids.to(self._device) for key, ids in self._tokens.padded(own, width).items()}
            batch = {"inputs": inputs, "labels": self.labels[own].to(self._device)}
            yield batch if draw.count is None else {**batch, "count": draw.count}

    def _width(self, indices: Tensor) -> int:
        if self._pad_to == "max_length":
            return self._max_length
        longest = int(self._tokens.lengths[indices].max())
        return min(-(-longest // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE, self._max_length)
