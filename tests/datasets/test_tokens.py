"""Encoded texts: padding written out by hand, alike on one process and on many."""

import pytest
import torch

from pruneexp.datasets.base import Draw
from pruneexp.datasets.order import eval_draws, train_draws
from pruneexp.datasets.tokens import TextSplit, Tokens, encode

CPU = torch.device("cpu")
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]  # ids 0 to 6
TEXTS = ["a b", "c", "a a a a a a a", "b c a"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import BertTokenizer

    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(VOCAB))
    return BertTokenizer(vocab=str(path), model_max_length=16)


def test_encode_and_pad(tokenizer):
    tokens = encode(tokenizer, TEXTS, None, max_length=8)
    assert tokens.lengths.tolist() == [4, 3, 8, 5]
    assert tokens.padded(torch.tensor([1, 0, 2]), 8) == _Equal(
        {
            "input_ids": [[2, 6, 3, 0, 0, 0, 0, 0], [2, 4, 5, 3, 0, 0, 0, 0], [2, 4, 4, 4, 4, 4, 4, 3]],
            "token_type_ids": [[0] * 8] * 3,
            "attention_mask": [[1] * 3 + [0] * 5, [1] * 4 + [0] * 4, [1] * 8],
        }
    )


def test_encode_pairs(tokenizer):
    tokens = encode(tokenizer, ["a", "b b b b b b"], ["c", "c c c c"], max_length=9)
    assert tokens.padded(torch.tensor([0, 1]), 9) == _Equal(
        {
            "input_ids": [[2, 4, 3, 6, 3, 0, 0, 0, 0], [2, 5, 5, 5, 3, 6, 6, 6, 3]],
            "token_type_ids": [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 1]],
            "attention_mask": [[1] * 5 + [0] * 4, [1] * 9],
        }
    )


class _Equal(dict):
    def __eq__(self, other):
        assert all(value.dtype == torch.int64 for value in other.values())
        return {key: value.tolist() for key, value in other.items()} == dict(self)

    __hash__ = None


def test_texts_are_encoded_in_chunks(tokenizer, monkeypatch):
    whole = encode(tokenizer, TEXTS, TEXTS[::-1], max_length=8)
    monkeypatch.setattr("pruneexp.datasets.tokens._ENCODED_AT_ONCE", 3)
    chunked = encode(tokenizer, TEXTS, TEXTS[::-1], max_length=8)
    assert torch.equal(whole.lengths, chunked.lengths)
    assert all(torch.equal(whole.flat[key], chunked.flat[key]) for key in whole.flat)


class NoTypes:
    """A tokenizer of the RoBERTa kind: no token types, and padding that is not 0."""

    pad_token_id, pad_token_type_id, model_max_length = 1, 0, 512

    def __call__(self, texts, pairs, *, truncation, max_length):
        return {"input_ids": [[7] * len(text) for text in texts]}


def test_token_types_only_if_the_tokenizer_makes_them():
    padded = encode(NoTypes(), ["abc", "a"], None, max_length=8).padded(torch.tensor([0, 1]), 4)
    assert padded == _Equal({"input_ids": [[7, 7, 7, 1], [7, 1, 1, 1]], "attention_mask": [[1, 1, 1, 0], [1, 0, 0, 0]]})


def test_a_tokenizer_that_does_not_fit():
    tokenizer = NoTypes()
    with pytest.raises(ValueError, match=r"dataset.max_length=513: the model takes at most 512 tokens"):
        encode(tokenizer, ["a"], None, max_length=513)
    tokenizer.pad_token_id = None
    with pytest.raises(ValueError, match="no padding token"):
        encode(tokenizer, ["a"], None, max_length=8)


def split(lengths, max_length=20, pad_to="longest"):
    sizes = torch.tensor(lengths)
    flat = torch.cat([torch.full((length,), number + 1, dtype=torch.int32) for number, length in enumerate(lengths)])
    tokens = Tokens({"input_ids": flat}, sizes.cumsum(0) - sizes, sizes, {"input_ids": 0})
    return TextSplit(tokens, torch.arange(len(lengths)), max_length=max_length, pad_to=pad_to, device=CPU)


@pytest.mark.parametrize(
    ("longest", "max_length", "pad_to", "width"),
    [
        (3, 20, "longest", 8),
        (8, 20, "longest", 8),
        (9, 20, "longest", 16),
        (17, 20, "longest", 20),
        (3, 20, "max_length", 20),
    ],
)
def test_width_of_a_batch(longest, max_length, pad_to, width):
    draw = Draw(torch.arange(2), slice(0, 2), seed=None)
    (batch,) = split([1, longest], max_length, pad_to).serve([draw])
    assert batch["inputs"]["input_ids"].shape == (2, width)
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [1, longest]


def test_evaluation_is_in_order_with_counts():
    batches = list(split([1, 9, 3]).serve(eval_draws(3, batch_size=2)))
    assert [batch["count"] for batch in batches] == [2, 1]
    assert [batch["labels"].tolist() for batch in batches] == [[0, 1], [2, 2]]
    assert [batch["inputs"]["input_ids"].shape[1] for batch in batches] == [16, 8]


def test_processes_pad_to_the_longest_of_all():
    lengths = [1, 20, 3, 4, 9, 2, 5, 6]

    def serve(**ranks):
        return list(split(lengths, 24).serve(train_draws(8, batch_size=4, seed=0, first_step=0, last_step=4, **ranks)))

    alone, ranks = serve(), [serve(rank=rank, world_size=2) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        assert "count" not in batch
        for key, rows in batch["inputs"].items():
            assert torch.equal(torch.cat([rank[step]["inputs"][key] for rank in ranks]), rows)
        assert torch.equal(torch.cat([rank[step]["labels"] for rank in ranks]), batch["labels"])
        for row, label in zip(batch["inputs"]["input_ids"], batch["labels"], strict=True):
            assert row[row > 0].tolist() == [label + 1] * lengths[label]
