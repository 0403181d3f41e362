"""What a task has to itself in a network: which layers, that they change places, and that nothing else does."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from pruneexp.models.heads import Heads
from pruneexp.models.parts import output_layers


class Small(nn.Module):
    """A convolutional network of one layer, with batch normalisation."""

    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.top = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))

    def forward(self, inputs):
        return self.top(self.body(inputs))


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return Heads(Small(3), {"five": Small(5), "seven": Small(7)})


def test_tasks_may_be_called_like_attributes_of_modules():
    assert "values.top.1.weight" in Heads(Small(3), {"values": Small(2)}).tensors()


IMAGES = torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def test_each_task_has_its_own_outputs_over_the_same_features(heads):
    network = heads.network.eval()
    features = network.body(IMAGES).flatten(1)
    for name, classes in (("five", 5), ("seven", 7)):
        layer = heads.own[f"/{name}"].get_submodule("/top/1")
        with heads.of(name):
            outputs = network(IMAGES)
        assert outputs.shape == (6, classes)
        assert torch.allclose(outputs, features @ layer.weight.T + layer.bias, atol=1e-6)
    assert network(IMAGES).shape == (6, 3)


def test_afterwards_the_network_is_what_it_was_even_if_something_fails(heads):
    before = {**dict(heads.named_parameters()), **dict(heads.named_buffers())}
    with pytest.raises(RuntimeError), heads.of("five"):
        raise RuntimeError
    after = {**dict(heads.named_parameters()), **dict(heads.named_buffers())}
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())


def test_a_training_pass_moves_the_batch_norm_statistics_of_its_own_task_only(heads):
    norm = heads.network.body[1]
    with heads.of("five"):
        heads.network(IMAGES + 3)
    assert norm.running_mean.tolist() == [0, 0, 0, 0]
    assert norm.num_batches_tracked.item() == 0
    moved = heads.tensors()
    assert moved["five.body.1.num_batches_tracked"].item() == 1
    assert (moved["five.body.1.running_mean"] != 0).all()
    assert moved["seven.body.1.running_mean"].tolist() == [0, 0, 0, 0]


def test_what_is_attached_to_the_targets_head_stays_with_it(heads):
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    heads.network.eval()
    with heads.of("five"):
        before = heads.network(IMAGES)
    own = heads.network(IMAGES)
    parametrize.register_parametrization(heads.network.top[1], "weight", Doubled())
    with heads.of("five"):
        assert torch.equal(heads.network(IMAGES), before)
    assert not torch.equal(heads.network(IMAGES), own)


def test_tensors_go_to_a_file_and_back_as_far_as_they_fit(heads, tmp_path):
    from safetensors.torch import save_file

    saved = heads.tensors()
    assert {name for name in saved if name.startswith("five.top")} == {"five.top.1.weight", "five.top.1.bias"}
    save_file(saved, tmp_path / "heads.safetensors")
    others = Heads(Small(3), {"five": Small(5), "seven": Small(8), "more": Small(2)})
    fresh = {name: tensor.clone() for name, tensor in others.tensors().items()}
    others.load(tmp_path / "heads.safetensors")
    loaded = others.tensors()
    assert torch.equal(loaded["five.top.1.weight"], saved["five.top.1.weight"])
    for name in ("seven.top.1.weight", "more.top.1.bias"):
        assert torch.equal(loaded[name], fresh[name])


def test_the_output_layers_of_encoders_are_all_but_the_encoder():
    from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    bert = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes))
    roberta = RobertaForSequenceClassification(RobertaConfig(vocab_size=20, **sizes))
    assert output_layers(bert) == ["classifier"]
    assert output_layers(roberta) == ["classifier.dense", "classifier.out_proj"]


def test_a_network_that_is_its_output_layer_has_no_room_for_a_second_head():
    with pytest.raises(ValueError, match="the output layer of Linear is no module of its own"):
        Heads(nn.Linear(3, 2), {"other": nn.Linear(3, 4)})
