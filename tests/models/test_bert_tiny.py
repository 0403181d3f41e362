"""The small BERT: sizes, a vocabulary that only the texts decide, saving and reading it."""

import random

import pytest
import torch

from pruneexp.datasets.base import DataInfo
from pruneexp.models.bert_tiny import BertTiny, vocabulary

TEXTS = ["The cat sat.", "the Dog sat, the dog RAN!", "Café naïve 123"]


@pytest.fixture
def make(arguments):
    return lambda **changes: BertTiny(**arguments("bert_tiny", **changes))


def test_vocabulary_by_hand():
    assert list(vocabulary(["b", "ab", "ab", "c", "ca", "ab", "ca"], 25)) == [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *("a", "##a", "b", "##b", "c", "##c"),  # a 5 times, b 4, c 3
        *("ab", "ca"),  # 3 and 2 times; b and c are there already
        *(f"[unused{i}]" for i in range(12)),
    ]


def test_vocabulary_ties_follow_the_alphabet_not_the_order():
    words = [word for word in ["pear", "plum", "fig", "apple", "kiwi", "lime"] for _ in range(2)]
    expected = vocabulary(words, 60)
    assert [token for token in expected if len(token) > 3 and token.isalpha()] == sorted(set(words) - {"fig"})
    for seed in range(3):
        random.Random(seed).shuffle(words)
        assert vocabulary(words, 60) == expected


@pytest.mark.parametrize("size", [6, 9, 30, 1000])
def test_vocabulary_has_exactly_its_size_and_every_position_once(size):
    found = vocabulary(["a", "rose", "is", "a", "rose", "is", "a", "rose"], size)
    assert sorted(found.values()) == list(range(size))


def test_characters_leave_half_of_the_vocabulary_to_words():
    found = list(vocabulary(["abc", "def", "ghi", "jkl", "mno", "pqr", "stu", "vwx"], 5 + 12))
    assert found[5:11] == ["a", "##a", "b", "##b", "c", "##c"]
    assert found[11:] == ["abc", "def", "ghi", "jkl", "mno", "pqr"]


def test_tokenizer_lower_cases_splits_words_and_falls_back_to_characters(make):
    tokenizer = make().tokenizer(TEXTS)
    assert tokenizer.tokenize("The CAT sat, cafe!") == ["the", "cat", "sat", ",", "cafe", "!"]
    assert tokenizer.tokenize("tasc") == ["t", "##a", "##s", "##c"]
    assert tokenizer.tokenize("ж") == ["[UNK]"]
    assert len(tokenizer) == 8192
    assert tokenizer.model_max_length == 512
    pair = tokenizer("cat", "dog")
    names = tokenizer.convert_ids_to_tokens(pair["input_ids"])
    assert names == ["[CLS]", "cat", "[SEP]", "dog", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.pad_token_id == 0


def test_network_does_not_depend_on_the_texts(make, sentences):
    shapes = []
    for texts in (TEXTS, ["one"], []):
        model = make()
        model.tokenizer(texts)
        shapes.append({key: value.shape for key, value in model.build(sentences).state_dict().items()})
    assert shapes[0] == shapes[1] == shapes[2]


def test_first_texts_decide(make):
    model = make()
    first = model.tokenizer(TEXTS)
    assert model.tokenizer(["something else"]) is first


def test_forward_and_sizes(make, sentences):
    """Parameters counted by hand from Devlin et al. 2019."""
    model = make()
    network = model.build(sentences)
    h, f, v, p = 128, 512, 8192, 512
    layer = 4 * (h * h + h) + (h * f + f) + (f * h + h) + 2 * 2 * h
    expected = (v + p + 2) * h + 2 * h + 2 * layer + (h * h + h) + (3 * h + 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network.training
    batch = model.tokenizer(TEXTS)(TEXTS, padding=True, return_tensors="pt")
    assert network(**batch).logits.shape == (3, 3)


def test_regression_has_one_output(make):
    network = make().build(DataInfo(kind="text", num_outputs=1, metrics=("pearson",), regression=True))
    assert network.config.problem_type == "regression"
    assert network.classifier.out_features == 1


def test_dropout_is_everywhere(make, sentences):
    network = make(dropout=0.25).build(sentences)
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


def test_saved_tokenizer_reads_alike(make, tmp_path):
    model = make()
    tokenizer = model.tokenizer(TEXTS)
    model.save_processor(tmp_path)
    again = make(tokenizer=str(tmp_path)).tokenizer(["quite different texts"])
    assert again("the cat ran", "cats")["input_ids"] == tokenizer("the cat ran", "cats")["input_ids"]
    assert again.get_vocab() == tokenizer.get_vocab()


def test_trained_weights_load_again(make, sentences, tmp_path):
    from safetensors.torch import save_file

    network = make().build(sentences)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = make(checkpoint=str(tmp_path / "model.safetensors")).build(sentences)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "model.num_heads=3: must divide model.hidden_size=128"),
        ({"num_layers": 0}, "model.num_layers=0: must be at least 1"),
        ({"vocab_size": 5}, "model.vocab_size=5: must be more"),
        ({"dropout": 1.0}, r"model.dropout=1.0: must be in \[0, 1\)"),
        ({"tokenizer": "/no/folder"}, "model.tokenizer=/no/folder: no folder there"),
    ],
)
def test_wrong_arguments_are_refused(changes, message, make):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_tokenizer_that_is_too_large_is_refused(make, tmp_path):
    model = make()
    model.tokenizer(TEXTS)
    model.save_processor(tmp_path)
    with pytest.raises(ValueError, match=r"model.tokenizer=.*: 8192 tokens, but the model knows 100"):
        make(vocab_size=100, tokenizer=str(tmp_path)).tokenizer(TEXTS)
