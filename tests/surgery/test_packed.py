"""Packed files: every tensor comes back as it was, and the size is the one that is counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pruneexp.measure.size import compressed_bytes
from pruneexp.surgery.packed import load_packed, save_packed


def test_bits_and_values_by_hand(tmp_path):
    weight = torch.zeros(2, 5)
    weight[0, 1], weight[1, 4] = 2.0, -3.0
    assert save_packed({"w": weight}, tmp_path / "w.safetensors") == 2 + 8
    stored = load_file(tmp_path / "w.safetensors")
    assert stored["w:bits"].tolist() == [0b10, 0b10]  # weights 1 and 9, the least bit first
    assert stored["w:values"].tolist() == [2.0, -3.0]
    assert torch.equal(load_packed(tmp_path / "w.safetensors")["w"], weight)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    rate=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]),
)
def test_any_tensor_comes_back(tmp_path_factory, shape, rate, dtype):
    path = tmp_path_factory.mktemp("packed") / "x.safetensors"
    tensor = (torch.randn(shape) * 9 * (torch.rand(shape) > rate)).to(dtype)
    state = {"x": tensor, "plain": torch.ones(3)}
    assert save_packed(state, path) == compressed_bytes(state, state)
    back = load_packed(path)
    assert back.keys() == state.keys()
    assert back["x"].dtype == dtype
    assert torch.equal(back["x"], tensor)


def test_damaged_and_other_files_are_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("plain.safetensors", "text.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match=f"{name}: no file of packed weights, or damaged"):
            load_packed(tmp_path / name)
