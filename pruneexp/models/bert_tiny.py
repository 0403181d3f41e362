"""A small BERT that starts from random weights, with a vocabulary made from the training texts: needs no download.

Architecture: Devlin et al. 2019, "BERT" (arXiv:1810.04805); the sizes of BERT-Tiny are from Turc et al. 2019,
"Well-Read Students Learn Better" (arXiv:1908.08962). The weights and the vocabulary are not theirs.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.hub import load_tokenizer, local_tokenizer
from pruneexp.models.hugging_face import check_dropout

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class BertTiny(Model):
    """A BERT with sizes to choose, randomly initialised."""

    kind = "text"

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        ffn_size: int,
        positions: int,
        vocab_size: int,
        dropout: float,
        tokenizer: str | None,
        checkpoint: str | None,
    ) -> None:
        """Sizes as in the BERT paper: H, L, A, the feed-forward layers' width, the longest text in tokens.

        vocab_size: entries of the embedding, whatever the texts. dropout: everywhere, in [0, 1). tokenizer: a saved
        one, to read texts as an earlier model did; null for one made from the training texts.

        Raises:
            ValueError: the sizes do not go together, or there is no such tokenizer.
        """
        super().__init__(checkpoint=checkpoint)
        sizes = {"hidden_size": hidden_size, "num_heads": num_heads, "ffn_size": ffn_size, "positions": positions}
        for key, size in (sizes | {"num_layers": num_layers}).items():
            if size < 1:
                raise ValueError(f"model.{key}={size}: must be at least 1")
        if hidden_size % num_heads:
            raise ValueError(f"model.num_heads={num_heads}: must divide model.hidden_size={hidden_size}")
        if vocab_size <= len(SPECIAL):
            raise ValueError(f"model.vocab_size={vocab_size}: must be more than the {len(SPECIAL)} special tokens")
        check_dropout(dropout)
        self.vocab_size = vocab_size
        self.tokenizer_path = None if tokenizer is None else local_tokenizer(tokenizer)
        self.config = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "intermediate_size": ffn_size,
            "max_position_embeddings": positions,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
        }

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network; there is no pretrained one."""
        from transformers import BertConfig, BertForSequenceClassification

        problem = "regression" if info.regression else "single_label_classification"
        config = BertConfig(**self.config, num_labels=info.num_outputs, problem_type=problem, dtype=torch.float32)
        return BertForSequenceClassification(config).train()

    def new_tokenizer(self, texts: list[str]) -> Any:
        """The saved tokenizer, or a lower-casing BertTokenizer with the vocabulary of the texts."""
        from transformers import BertTokenizer

        if self.tokenizer_path is not None:
            return load_tokenizer("model.tokenizer", self.tokenizer_path, self.vocab_size)
        words = (word for text in texts for word in _words(text))
        return BertTokenizer(
            vocab=vocabulary(words, self.vocab_size), model_max_length=self.config["max_position_embeddings"]
        )


def vocabulary(words: Iterable[str], size: int) -> dict[str, int]:
    """Token -> position, exactly `size` of them, the same for the same words whatever their order.

    The special tokens; then, at most half of the rest, the characters of the words with their ##-continuations; then
    the words; characters and words by how often they occur, ties by the alphabet; then [unused0], [unused1], ... to
    fill it. WordPiece spells the words that are left out in characters.
    """
    counted = Counter(words)
    characters: Counter[str] = Counter()
    for word, count in counted.items():
        for character in word:
            characters[character] += count
    tokens = list(SPECIAL)
    for character in _ranked(characters)[: (size - len(SPECIAL)) // 4]:
        tokens += [character, f"##{character}"]
    known = set(tokens)
    tokens += [word for word in _ranked(counted) if word not in known]
    tokens += [f"[unused{i}]" for i in range(size - len(tokens))]
    return {token: position for position, token in enumerate(tokens[:size])}


def _ranked(counts: Counter[str]) -> list[str]:
    """The keys, the most frequent first, ties by code point."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def _words(text: str) -> list[str]:
    """Lower-cased words and punctuation marks, split as BertTokenizer splits before WordPiece."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normal = BertNormalizer(lowercase=True).normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(normal)]
