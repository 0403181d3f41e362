import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from pruneexp.measure.flops import Macs, effective, macs


class Block(nn.Module):
    """A CIFAR residual block; the shortcut has no weights (He et al. 2016, arXiv:1512.03385, option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x):
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(self.bn(self.conv2(F.relu(self.conv1(x)))) + shortcut)


def resnet20():
    blocks = [
        Block(i, o, s)
        for i, o, s in [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    ]
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def bert(attention):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=11, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, num_labels=5
    )
    config._attn_implementation = attention
    tokens = {"input_ids": torch.ones(1, 7, dtype=torch.long), "attention_mask": torch.ones(1, 7, dtype=torch.long)}
    return BertForSequenceClassification(config), tokens


def test_resnet20_layer_by_layer():
    # 9 x inputs x outputs x pixels of the output: the stem, then three stages of six convolutions, then 64 x 10.
    stem = 9 * 3 * 16 * 32 * 32
    stage1 = 6 * 9 * 16 * 16 * 32 * 32
    stage2 = (9 * 16 * 32 + 5 * 9 * 32 * 32) * 16 * 16
    stage3 = (9 * 32 * 64 + 5 * 9 * 64 * 64) * 8 * 8
    measured = macs(resnet20(), torch.zeros(1, 3, 32, 32))
    assert measured.total == stem + stage1 + stage2 + stage3 + 640 == 40_551_040
    assert sum(measured.per_weight.values()) == measured.total
    assert measured.per_weight["0.weight"] == stem
    assert measured.per_weight["4.conv1.weight"] == 9 * 16 * 32 * 16 * 16


def test_resnet18_as_published():
    from torchvision.models import resnet18

    measured = macs(resnet18(), torch.zeros(1, 3, 224, 224))
    assert measured.total == sum(measured.per_weight.values())
    assert round(measured.total / 1e9, 3) == 1.814  # torchvision's table of weights: 1.81 GFLOPS, in MACs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_is_the_closed_form(attention):
    model, tokens = bert(attention)
    measured = macs(model, tokens)
    d, f, length, layers, classes = 32, 48, 7, 3, 5
    scores = layers * 2 * length**2 * d
    assert measured.total == layers * (4 * length * d**2 + 2 * length * d * f) + scores + d**2 + d * classes
    assert measured.total - sum(measured.per_weight.values()) == scores
    assert measured.per_weight["bert.encoder.layer.1.intermediate.dense.weight"] == length * d * f
    assert measured.per_weight["bert.pooler.dense.weight"] == d**2


def test_attention_takes_the_path_that_every_torch_counts():
    class Attention(nn.Module):
        def forward(self, x):
            assert torch.backends.cuda.math_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled()
            return F.scaled_dot_product_attention(x, x, x)

    assert macs(Attention(), torch.zeros(1, 2, 7, 8)).total == 2 * (2 * 7 * 7 * 8)
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize("grad", [True, False])
def test_the_encoder_of_torch_is_not_counted_as_zero(grad):
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).requires_grad_(False)
    with torch.set_grad_enabled(grad):
        assert macs(nn.TransformerEncoder(layer, 2), torch.zeros(1, 5, 16)).total == 2 * (
            4 * 5 * 256 + 2 * 25 * 16 + 2 * 5 * 16 * 24
        )
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "layer, shape, expected",
    [
        (nn.Linear(5, 7), (1, 5), 35),
        (nn.Linear(5, 7), (1, 3, 5), 3 * 35),
        (nn.Conv1d(2, 3, 5), (1, 2, 9), 3 * 2 * 5 * 5),
        (nn.Conv2d(2, 3, 3), (1, 2, 8, 8), 3 * 2 * 9 * 36),
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), (1, 2, 8, 8), 3 * 2 * 9 * 16),
        (nn.Conv2d(2, 3, 3, dilation=2), (1, 2, 8, 8), 3 * 2 * 9 * 16),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), (1, 4, 8, 8), 6 * 2 * 9 * 36),
        (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 8, 8), 4 * 9 * 36),
        (nn.Conv3d(2, 3, (1, 2, 3)), (1, 2, 4, 4, 4), 3 * 2 * 6 * 4 * 3 * 2),
    ],
)
def test_single_layers(layer, shape, expected):
    assert macs(nn.Sequential(layer), torch.zeros(shape)) == Macs(total=expected, per_weight={"0.weight": expected})


def test_a_bare_layer_is_named_by_its_parameter():
    assert macs(nn.Linear(2, 3), torch.zeros(1, 2)).per_weight == {"weight": 6}


def test_a_layer_used_twice_and_a_tied_weight_add_up_under_the_first_name():
    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = layer.weight
    assert macs(nn.Sequential(layer, layer, tied), torch.zeros(1, 4)).per_weight == {"0.weight": 48}


class Costly(nn.Module):
    """A parametrization with a matrix product of its own."""

    def forward(self, weight):
        return weight @ torch.eye(weight.shape[1])


def test_a_parametrized_layer_has_its_dense_name_and_cost():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    dense = macs(model, torch.zeros(1, 4))
    parametrize.register_parametrization(model[0], "weight", Costly())
    assert macs(model, torch.zeros(1, 4)) == dense == Macs(total=18, per_weight={"0.weight": 12, "1.weight": 6})


def test_a_compiled_model_is_counted_uncompiled():
    def backend(graph, example):
        return lambda *_: (torch.full((1, 3), 7.0),)  # compiled code without a product to count

    class Net(nn.Linear):  # of its own: torch 2.11 does not compile one of torch's classes in place
        def forward(self, x):
            return super().forward(x).relu()

    model = Net(4, 3).eval()
    model.compile(backend=backend)
    with torch.no_grad():
        assert model(torch.zeros(1, 4)).tolist() == [[7.0] * 3]
    assert macs(model, torch.zeros(1, 4)).total == 12


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4, 2))
    model[1].eval()
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    macs(model, torch.zeros(1, 3, 3, 3))
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(model.parameters(), grads, strict=True))
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator) and torch.is_grad_enabled()


def test_hooks_and_mode_are_restored_after_an_error():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
    with pytest.raises(RuntimeError):
        macs(model, torch.zeros(1, 4))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert macs(model[0], torch.zeros(1, 4)).total == 12


def test_effective_macs_by_hand():
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Flatten(), nn.Linear(16, 2))
    counted = macs(model, torch.zeros(1, 2, 2, 2))
    assert counted == Macs(total=32 + 32, per_weight={"0.weight": 32, "2.weight": 32})
    half = torch.tensor([True, True, False, False]).view(4, 1, 1, 1)
    assert effective(counted, {}) == 64
    assert effective(counted, {"0.weight": half}) == 16 + 32
    assert effective(counted, {"0.weight": half.expand(4, 2, 1, 1)}) == 16 + 32
    assert effective(counted, {"0.weight": half, "2.bias": torch.zeros(2), "elsewhere": torch.zeros(3)}) == 48
    with torch.no_grad():
        model[2].weight.fill_(1.0)[0, :5] = 0.0
        model[0].weight.fill_(1.0)
    assert effective(counted, model.state_dict()) == 64 - 5


def test_attention_stays_when_all_weights_are_zero():
    model, tokens = bert("sdpa")
    counted = macs(model, tokens)
    zeros = {name: torch.zeros_like(weight) for name, weight in model.state_dict().items()}
    assert effective(counted, zeros) == 3 * 2 * 7**2 * 32


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(1, 5))
def test_every_zero_saves_its_uses(keep, rows):
    mask = torch.tensor(keep).view(3, 4)
    counted = macs(nn.Linear(4, 3), torch.zeros(1, rows, 4))
    assert effective(counted, {"weight": mask}) == rows * sum(keep)
