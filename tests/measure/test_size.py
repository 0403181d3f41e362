import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_model
from torch import nn

from pruneexp.measure.size import compressed_bytes, count_nonzero, size_bytes, sparsity_table


def payload_bytes(path):
    """The size of a safetensors file less its header: 8 bytes of length, then that many bytes of JSON."""
    data = path.read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    json.loads(data[8 : 8 + header])
    return len(data) - 8 - header


def test_nonzeros_are_counted_over_all_tensors():
    assert count_nonzero([torch.tensor([0.0, -1.0, 2.0]), torch.tensor([[0, 3]]), torch.zeros(0)]) == 3


def test_dense_bytes_are_those_of_the_file(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 2).half())
    save_model(model, str(tmp_path / "model.safetensors"))
    by_hand = 4 * (5 * 3 * 3 * 3 + 5) + 4 * 4 * 5 + 8 + 2 * (7 * 2 + 2)  # the 8: BatchNorm's int64 counter
    assert size_bytes(model.state_dict()) == by_hand == payload_bytes(tmp_path / "model.safetensors")


def test_a_tied_weight_counts_once(tmp_path):
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "model.safetensors"))
    assert size_bytes(model.state_dict()) == 6 * 4 * 4 == payload_bytes(tmp_path / "model.safetensors")
    model[0].weight.data.zero_()
    assert compressed_bytes(model.state_dict(), {"1.weight"}) == compressed_bytes(model.state_dict(), {"0.weight"}) == 3


def test_a_pruned_tensor_is_a_bit_per_weight_and_its_values():
    weight = torch.zeros(3, 3)
    weight[0, 0] = weight[1, 2] = 1.0
    state = {"weight": weight, "half": weight.half(), "bias": torch.zeros(3)}
    dense = 36 + 18 + 12
    assert compressed_bytes(state, {}) == dense
    assert compressed_bytes(state, {"weight": None}) == (2 + 2 * 4) + 18 + 12
    assert compressed_bytes(state, {"half"}) == 36 + (2 + 2 * 2) + 12


def test_a_full_tensor_never_grows():
    assert compressed_bytes({"weight": torch.ones(3, 3)}, {"weight"}) == 36


@given(st.lists(st.sampled_from([0.0, 1.0, -2.0]), max_size=40))
def test_compressed_is_never_more_than_dense_and_falls_with_each_zero(values):
    state = {"weight": torch.tensor(values, dtype=torch.float32)}
    size = compressed_bytes(state, {"weight"})
    assert size <= size_bytes(state) == 4 * len(values)
    assert size >= 4 * sum(value != 0 for value in values)
    assert compressed_bytes({"weight": torch.zeros(len(values))}, {"weight"}) == min(
        (len(values) + 7) // 8, 4 * len(values)
    )


@pytest.fixture
def model():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)[:3] = 0.0
        model[3].weight.fill_(1.0)
    return model


def test_the_table_has_a_row_per_weight_pruned_or_not(model):
    conv, linear = sparsity_table(model, {"0.weight"}, macs={"0.weight": 80})
    assert conv == {
        "name": "0.weight",
        "shape": [4, 2, 1, 1],
        "weights": 8,
        "zeros": 6,
        "sparsity": 0.75,
        "pruned": True,
        "macs": 80,
    }
    assert linear["name"] == "3.weight" and linear["zeros"] == 0 and not linear["pruned"] and linear["macs"] is None


def test_the_table_of_a_state_dict_adds_what_masks_name(model):
    rows = sparsity_table(model.state_dict(), {"0.weight", "1.bias"})
    assert [row["name"] for row in rows] == ["0.weight", "1.bias", "3.weight"]
    assert rows[1]["sparsity"] == 1.0
