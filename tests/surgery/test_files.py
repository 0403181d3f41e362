"""A shrunk transformer in a folder: pruneexp.load reads it, transformers does not, and damage is named in one line."""

import json

import pytest
import torch

import pruneexp
from pruneexp.surgery.encoders import attentions
from pruneexp.surgery.files import save_shrunk
from pruneexp.surgery.shrink import shrink

TOKENS = {"input_ids": torch.tensor([[2, 5, 9, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def shrunk_bert(kind, heads_of_first_layer):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    if kind == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, max_position_embeddings=16, num_labels=3, **sizes)
    network = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    found = next(found for _, found in attentions(network))
    found.projection.weight.data[:, : 8 * heads_of_first_layer] = 0
    return shrink(network, {}, TOKENS)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("heads", [1, 4])
def test_a_saved_folder_loads_in_one_line(kind, heads, tmp_path):
    small = shrunk_bert(kind, heads)
    save_shrunk(small, tmp_path / "new" / "folder")
    again = pruneexp.load(tmp_path / "new" / "folder")
    assert type(again) is type(small)
    assert not again.training
    assert torch.equal(again(**TOKENS).logits, small(**TOKENS).logits)
    assert not list(tmp_path.rglob("*.bin"))


def test_from_pretrained_raises_where_shapes_differ(tmp_path):
    from transformers import AutoModelForSequenceClassification

    save_shrunk(shrunk_bert("Bert", 1), tmp_path)
    with pytest.raises(RuntimeError) as error:
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert str(error.value) == (
        "You set `ignore_mismatched_sizes` to `False`, thus raising an error. For details look at the above report!"
    )


def test_from_pretrained_makes_weights_up_where_a_whole_sub_layer_is_gone(tmp_path):
    """The trap that the documentation warns of; should transformers learn to refuse, it can go there."""
    from transformers import AutoModelForSequenceClassification

    small = shrunk_bert("Bert", 4)
    save_shrunk(small, tmp_path)
    made_up = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert made_up.bert.encoder.layer[0].attention.self.value.weight.any()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("structure.json", "[", r"structure\.json: is damaged"),
        ("structure.json", "{}", "structure: is not what pruneexp writes"),
        ("config.json", "{", r"config\.json: cannot be used"),
        ("config.json", json.dumps({"model_type": "bert", "architectures": ["NoSuchModel"]}), "NoSuchModel"),
        ("model.safetensors", "x", r"model\.safetensors: damaged"),
    ],
)
def test_damage_is_named_in_one_line(name, content, message, tmp_path):
    save_shrunk(shrunk_bert("Bert", 1), tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        pruneexp.load(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    save_shrunk(shrunk_bert("Bert", 1), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"differ in 1 tensors: classifier\.bias"):
        pruneexp.load(tmp_path)
