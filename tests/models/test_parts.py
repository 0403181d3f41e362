"""Which parameters `exclude` can name, for one network of each kind."""

import pytest
import torch
from torch import nn

from pruneexp.models.bert_tiny import BertTiny
from pruneexp.models.cifar_resnet import ResNet
from pruneexp.models.mobilenet_v1 import MobileNet
from pruneexp.models.parts import encoder_of, parts


def test_cifar_resnet():
    assert parts(ResNet(blocks=1, channels=3, num_outputs=10)) == {
        "first": {"conv1.weight"},
        "classifier": {"linear.weight", "linear.bias"},
        "depthwise": set(),
        "embeddings": set(),
        "head": set(),
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_mobilenet_v1(channels):
    found = parts(MobileNet(width=0.25, channels=channels, num_outputs=10))
    assert found["first"] == {"features.0.weight"}
    assert found["classifier"] == {"classifier.weight", "classifier.bias"}
    assert found["depthwise"] == {f"features.{3 + 6 * i}.weight" for i in range(13)}


@pytest.mark.parametrize(
    ("name", "first", "classifier", "depthwise"),
    [
        ("resnet18", {"conv1.weight"}, {"fc.weight", "fc.bias"}, 0),
        ("mobilenet_v2", {"features.0.0.weight"}, {"classifier.1.weight", "classifier.1.bias"}, 17),
        ("squeezenet1_0", {"features.0.weight", "features.0.bias"}, {"classifier.1.weight", "classifier.1.bias"}, 0),
    ],
)
def test_torchvision(name, first, classifier, depthwise):
    import torchvision

    with torch.device("meta"):
        found = parts(torchvision.models.get_model(name))
    assert (found["first"], found["classifier"], len(found["depthwise"])) == (first, classifier, depthwise)


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("mobilenetv1_100", {"classifier.weight", "classifier.bias"}),
        ("deit_tiny_distilled_patch16_224", {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}),
    ],
)
def test_timm(name, classifier):
    import timm

    with torch.device("meta"):
        found = parts(timm.create_model(name))
    assert found["classifier"] == classifier


BERT_EMBEDDINGS = {f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}


def test_bert(arguments, sentences):
    found = parts(BertTiny(**arguments("bert_tiny")).build(sentences))
    assert found["first"] == set()
    assert found["embeddings"] == BERT_EMBEDDINGS
    assert found["classifier"] == {"classifier.weight", "classifier.bias"}
    assert found["head"] == found["classifier"] | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def test_an_encoder_inside_another_module(arguments, sentences):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = BertTiny(**arguments("bert_tiny")).build(sentences)
            self.auxiliary = nn.Linear(128, 2)

    network = Wrapped()
    assert encoder_of(network) is network.model.bert
    found = parts(network)
    assert found["embeddings"] == {f"model.{name}" for name in BERT_EMBEDDINGS}
    assert {"auxiliary.weight", "model.classifier.weight", "model.bert.pooler.dense.weight"} <= found["head"]
    assert not any(".layer." in name for name in found["head"])


def test_classifier_is_outside_the_encoder_wherever_that_is():
    class HeadFirst(nn.Module):
        base_model_prefix = "body"

        def __init__(self):
            super().__init__()
            self.score = nn.Linear(4, 2)
            self.body = nn.Linear(4, 4)

    found = parts(HeadFirst())
    assert found["classifier"] == found["head"] == {"score.weight", "score.bias"}


@pytest.mark.parametrize(("kind", "last"), [("roberta", "classifier.out_proj"), ("distilbert", "classifier")])
def test_other_encoders(kind, last):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "vocab_size": 20,
        "intermediate_size": 8,
    }
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **sizes))
    found = parts(network)
    assert found["classifier"] == {f"{last}.weight", f"{last}.bias"}
    assert found["classifier"] < found["head"]  # both have a dense layer before it
    assert not any(name.startswith(f"{kind}.") for name in found["head"])


def test_every_name_is_a_parameters(arguments, sentences):
    for network in (
        BertTiny(**arguments("bert_tiny")).build(sentences),
        MobileNet(width=0.25, channels=1, num_outputs=2),
    ):
        assert set().union(*parts(network).values()) <= set(dict(network.named_parameters()))


def test_networks_without_convolutions_or_linear_layers():
    assert not any(parts(nn.Sequential(nn.ReLU())).values())
    assert parts(nn.Linear(2, 2))["classifier"] == {"weight", "bias"}
