"""model.checkpoint and model.name_or_path: files that are no weights of the model, and some in another form."""

import argparse
import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruneexp.building import build
from pruneexp.cli import compose
from pruneexp.datasets.base import DataInfo

from .commands import refused_run, runs

DIGITS = DataInfo("image", 10, ("accuracy",), channels=1, image_size=8)


@pytest.fixture(scope="module")
def network():
    """The default model, freshly made."""
    torch.manual_seed(0)
    return build(compose([])["model"], "model").build(DIGITS)


class Code:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def weights(network, **changes):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()} | changes


def half_of(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lying_header(path):
    """A .safetensors file whose head claims to be longer than any file."""
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def offsets_beyond_the_end(path):
    head = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0" * 8)


def other_widths(network):
    return {name: torch.cat([tensor, tensor]) for name, tensor in weights(network).items() if tensor.dim() == 4}


CASES = {
    "code in a pickle": (
        "net.pt",
        lambda net, path: torch.save({"state_dict": weights(net), "x": Code(path.parent / "ran")}, path),
        "mkdir) besides tensors and was not opened, because that can run code",
    ),
    "code in an old pickle": (
        "net.pth",
        lambda net, path: torch.save([Code(path.parent / "ran")], path, _use_new_zipfile_serialization=False),
        "was not opened, because that can run code",
    ),
    "a whole module": ("net.pt", torch.save, "besides tensors and was not opened"),
    "arguments of a script": (
        "net.pt",
        lambda net, path: torch.save({"model": weights(net), "args": argparse.Namespace(lr=1)}, path),
        "convert it to .safetensors",
    ),
    "half a file": ("net.pt", lambda net, path: (torch.save(weights(net), path), half_of(path)), "damaged"),
    "half a .safetensors": (
        "net.safetensors",
        lambda net, path: (save_file(weights(net), path), half_of(path)),
        "damaged",
    ),
    "no byte": ("net.pt", lambda net, path: path.write_bytes(b""), "damaged"),
    "a web page": ("net.safetensors", lambda net, path: path.write_bytes(b"<html>not found</html>"), "damaged"),
    "a head that lies": ("net.safetensors", lambda net, path: lying_header(path), "damaged"),
    "tensors beyond the end": ("net.safetensors", lambda net, path: offsets_beyond_the_end(path), "damaged"),
    "another architecture": (
        "net.pt",
        lambda net, path: torch.save(nn.Linear(3, 3).state_dict(), path),
        "none of its 2 keys fits the model",
    ),
    "other widths": (
        "net.pt",
        lambda net, path: torch.save(other_widths(net), path),
        "conv1.weight has shape (32, 1, 3, 3) in the file, (16, 1, 3, 3) in the model",
    ),
    "other classes": (
        "net.safetensors",
        lambda net, path: save_file(weights(net) | {"linear.weight": torch.ones(5, 64)}, path),
        "the file is for another number of classes",
    ),
    "NaN": (
        "net.safetensors",
        lambda net, path: save_file(weights(net) | {"linear.bias": torch.full((10,), torch.nan)}, path),
        "linear.bias holds NaN or infinity",
    ),
    "quantised": (
        "net.safetensors",
        lambda net, path: save_file(weights(net) | {"linear.bias": torch.ones(10, dtype=torch.int8)}, path),
        "linear.bias is int8, as in quantised models",
    ),
    "no tensors": ("net.pt", lambda net, path: torch.save({"epoch": 3}, path), "holds no named tensors"),
    "an unknown suffix": ("net.h5", lambda net, path: path.write_bytes(b"x"), "give .safetensors, .pt, .pth"),
    "no file": ("net.pt", lambda net, path: None, "net.pt: no such file"),
    "a folder": ("net.pt", lambda net, path: path.mkdir(), "net.pt: no such file"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_holds_no_such_weights_is_refused(case, network, tmp_path, monkeypatch, capsys):
    name, write, message = CASES[case]
    write(network, tmp_path / name)
    line = refused_run([f"model.checkpoint={name}"], tmp_path, monkeypatch, capsys)
    assert message in line
    assert f"model.checkpoint={name}: " in line
    assert not (tmp_path / "ran").exists(), "code in the file was run"


ACCEPTED = {
    "half precision": lambda net: {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights(net).items()
    },
    "extra keys": lambda net: weights(net, ema_decay=torch.ones(1)),
    "keys of DataParallel under compile": lambda net: {
        f"module._orig_mod.{name}": tensor for name, tensor in weights(net).items()
    },
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_weights_in_another_form_are_taken(case, network, tmp_path, monkeypatch, capsys):
    torch.save({"state_dict": ACCEPTED[case](network)}, tmp_path / "net.pt")
    options = ["model.checkpoint=net.pt", "dense=pretrained", "dataset.max_examples=40"]
    runs(options, tmp_path, monkeypatch)
    (summary,) = tmp_path.glob("outputs/default/*/summary.json")
    assert json.loads(summary.read_text())["dense"]["name"] == "accuracy"


def hub_folder(folder, **config):
    """A folder as the hub has them, of a tiny BERT with the wordpieces of a few letters."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=32, **sizes))
    network.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return network


def weights_with_code(folder):
    network = hub_folder(folder)
    (folder / "model.safetensors").unlink()
    torch.save({**network.state_dict(), "x": Code(folder / "ran")}, folder / "pytorch_model.bin")


def own_code(folder):
    hub_folder(folder, model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"})
    (folder / "mine.py").write_text(f"import os\nos.mkdir({str(folder / 'ran')!r})\n")


HUB = {
    "a config that is no JSON": (lambda f: (hub_folder(f), (f / "config.json").write_text("{")), "cannot be loaded"),
    "weights that end early": (lambda f: (hub_folder(f), half_of(f / "model.safetensors")), "cannot be loaded"),
    "no weights": (lambda f: (hub_folder(f), (f / "model.safetensors").unlink()), "cannot be loaded"),
    "weights of other sizes": (lambda f: hub_folder(f, intermediate_size=20), "weights of the BertModel are not there"),
    "no vocabulary": (lambda f: (hub_folder(f), (f / "vocab.txt").unlink()), "no tokenizer.json in that folder"),
    "weights with code in them": (weights_with_code, "its weights hold Python objects, which can run code"),
    "a model with code of its own": (own_code, "where you trust it set model.trust_remote_code=true"),
}


@pytest.mark.parametrize("case", HUB)
def test_a_folder_of_the_hub_that_cannot_be_used_is_refused(case, tmp_path, monkeypatch, capsys):
    write, message = HUB[case]
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub")
    options = ["model=bert", "model.name_or_path=./hub", "dataset=text_embedded", "dataset.max_length=16"]
    line = refused_run([*options, "dataset.max_examples=40"], tmp_path, monkeypatch, capsys)
    assert message in line
    assert "model.name_or_path=hub: " in line
    assert not (tmp_path / "hub" / "ran").exists(), "code in the folder was run"
