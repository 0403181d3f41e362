"""State dicts of every make go in; what is damaged, foreign or dangerous is refused in one line."""

import argparse
import logging
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruneexp.models.checkpoints import load_weights, read_state_dict


def network(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, outputs))


@pytest.fixture
def state():
    torch.manual_seed(0)
    return network().state_dict()


def assert_loads(path, state):
    target = network()
    loaded = load_weights(target, path)
    assert (loaded.missing, loaded.unexpected) == ([], [])
    assert all(torch.equal(value, state[key]) for key, value in target.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".th", ".bin"])
def test_every_kind_of_file_loads(suffix, state, tmp_path):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    assert_loads(path, state)


@pytest.mark.parametrize("wrappers", [["state_dict"], ["model"], ["model_state_dict"], ["model", "state_dict"]])
def test_wrapped_state_dicts_load(wrappers, state, tmp_path):
    content = state
    for wrapper in wrappers:
        content = {"epoch": 7, wrapper: content, "best": torch.tensor(0.9)}
    torch.save(content, tmp_path / "weights.th")
    assert_loads(tmp_path / "weights.th", state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_of_all_keys_are_taken_off(prefix, state, tmp_path):
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "weights.pt")
    assert_loads(tmp_path / "weights.pt", state)


def test_a_prefix_of_some_keys_belongs_to_them(tmp_path):
    torch.save({"module.weight": torch.ones(1), "other": torch.ones(1)}, tmp_path / "weights.pt")
    assert set(read_state_dict(tmp_path / "weights.pt")) == {"module.weight", "other"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast(dtype, state, tmp_path):
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, tmp_path / "weights.safetensors")
    target = network()
    load_weights(target, tmp_path / "weights.safetensors")
    assert target[0].weight.dtype == torch.float32
    assert torch.equal(target[0].weight, half["0.weight"].float())


def test_missing_and_unexpected_keys_are_returned_and_logged(state, tmp_path, caplog):
    del state["3.weight"], state["1.num_batches_tracked"]
    torch.save({**state, "extra": torch.ones(1)}, tmp_path / "weights.pt")
    loaded = load_weights(network(), tmp_path / "weights.pt")
    assert (loaded.missing, loaded.unexpected) == (["3.weight"], ["extra"])
    messages = [record.getMessage() for record in caplog.records if record.name == "pruneexp"]
    assert any("1 keys of the model are not in it: 3.weight" in message for message in messages)
    assert any("1 of its keys are not in the model: extra" in message for message in messages)


def test_a_complete_checkpoint_is_loaded_without_a_word(state, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "weights.pt")
    load_weights(network(), tmp_path / "weights.pt")
    assert not caplog.records


def refusal(path, target=None) -> str:
    with pytest.raises(ValueError) as error:
        load_weights(target or network(), path)
    message = str(error.value)
    assert message.startswith(f"model.checkpoint={path}: ")
    assert "\n" not in message
    return message


def test_nothing_that_fits_is_refused(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    assert "none of its 1 keys fits the model; the file has a, the model 0.weight" in refusal(tmp_path / "weights.pt")


def test_another_number_of_classes_is_named(state, tmp_path):
    torch.save(state, tmp_path / "weights.pt")
    target = network(outputs=5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    message = refusal(tmp_path / "weights.pt", target)
    assert (
        "3.weight has shape (3, 4) in the file, (5, 4) in the model; the file is for another number of classes"
        in message
    )
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_another_shape_inside_is_named_before_the_classifier(state, tmp_path):
    state["0.weight"] = torch.ones(4, 1, 3, 3)
    torch.save(state, tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt", network(outputs=5))
    assert "0.weight has shape (4, 1, 3, 3) in the file, (4, 2, 3, 3) in the model" in message
    assert "classes" not in message


class Malicious:
    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(legacy, state, tmp_path):
    content = {"state_dict": state, "args": Malicious(str(tmp_path / "ran"))}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    assert "mkdir) besides tensors and was not opened, because that can run code; where" in refusal(
        tmp_path / "weights.pt"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [argparse.Namespace(lr=0.1), nn.Linear(2, 2)], ids=["namespace", "module"])
def test_python_objects_are_refused(content, tmp_path):
    torch.save({"args": content}, tmp_path / "weights.pt")
    assert "convert it to .safetensors" in refusal(tmp_path / "weights.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("damage", ["text", "empty", "half"])
def test_damaged_files_are_refused(suffix, damage, state, tmp_path):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    content = {"text": b"<html>not found</html>", "empty": b"", "half": path.read_bytes()[: path.stat().st_size // 2]}
    path.write_bytes(content[damage])
    assert ": damaged" in refusal(path)


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(2)], ids=["empty", "numbers", "list", "tensor"]
)
def test_files_without_named_tensors_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    assert "holds no named tensors" in refusal(tmp_path / "weights.pt")


def test_unknown_suffixes_are_refused(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"x")
    assert "give .safetensors, .pt, .pth, .th or .bin" in refusal(tmp_path / "weights.h5")


def test_the_key_in_messages_can_be_another(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"^dense=.*none of its"):
        load_weights(network(), tmp_path / "weights.pt", key="dense")
