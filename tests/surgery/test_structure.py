"""Structures are plain data, and those that do not fit are refused in one line. Round trips: test_architectures."""

import json

import pytest
import torch
from torch import nn

from pruneexp.surgery.structure import restructure_, structure
from pruneexp.surgery.verify import SurgeryError


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 4, 1, groups=2))


def test_every_layer_is_described_by_numbers():
    assert structure(network()) == {
        "format": 1,
        "layers": {
            "0": {"kind": "convolution", "in_channels": 3, "out_channels": 8, "groups": 1, "bias": False},
            "1": {"kind": "batch_norm", "num_features": 8},
            "2": {"kind": "prelu", "num_parameters": 8},
            "3": {"kind": "convolution", "in_channels": 8, "out_channels": 4, "groups": 2, "bias": True},
        },
    }


def test_a_network_gets_shapes_attributes_and_biases():
    wanted = structure(network())
    for name, key, value in (("0", "out_channels", 6), ("1", "num_features", 6), ("2", "num_parameters", 6)):
        wanted["layers"][name][key] = value
    wanted["layers"]["0"]["bias"] = True
    wanted["layers"]["3"] |= {"in_channels": 6, "out_channels": 2, "bias": False}
    changed = network()
    restructure_(changed, json.loads(json.dumps(wanted)))
    assert {name: tuple(tensor.shape) for name, tensor in changed.state_dict().items()} == {
        "0.weight": (6, 3, 3, 3),
        "0.bias": (6,),
        "1.weight": (6,),
        "1.bias": (6,),
        "1.running_mean": (6,),
        "1.running_var": (6,),
        "1.num_batches_tracked": (),
        "2.weight": (6,),
        "3.weight": (2, 3, 1, 1),
    }
    assert changed(torch.zeros(1, 3, 5, 5)).shape == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "format": 2}, "structure: has format 2, this version reads 1"),
        (lambda s: {"layers": {}}, "structure: is not what pruneexp writes"),
        (lambda s: [], "structure: is not what pruneexp writes"),
        (lambda s: {**s, "layers": {"9": s["layers"]["0"]}}, "structure: 9 does not fit the Sequential"),
        (lambda s: {**s, "layers": {"1": s["layers"]["0"]}}, "structure: 1 does not fit the Sequential"),
        (lambda s: {**s, "layers": {"1": {"kind": "batch_norm", "num_features": 9}}}, "its weight has shape (8,)"),
        (lambda s: {**s, "layers": {"0": {"kind": "no heads"}}}, "structure: 0 does not fit the Sequential"),
        (lambda s: {**s, "layers": {"0": {"kind": "convolution"}}}, "structure: 0 does not fit the Sequential"),
    ],
)
def test_a_structure_of_something_else_is_refused_in_one_line(change, message):
    with pytest.raises(SurgeryError) as error:
        restructure_(network(), change(structure(network())))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
