"""PDP on units that span several tensors: channels, blocks, heads and FFN units."""

import pytest
import torch
from torch import nn

from pruneexp.budgets import Global, Uniform
from pruneexp.masks import zeros
from pruneexp.methods.base import Setting
from pruneexp.methods.pdp import PDP
from pruneexp.patterns import Block
from pruneexp.schedules import Constant, Timeline
from pruneexp.structured import Channel, Transformer


class Headline:
    headline = "accuracy"


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.branch, self.branch_norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.plain = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.branch_norm(self.branch(x))).relu()
        return self.head(self.plain(x).relu().mean((2, 3)))


def network():
    torch.manual_seed(0)
    model = ConvNet().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return model


INPUTS = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def pdp(model, pattern, *, sparsity=0.5, tau=0.3, inputs=INPUTS, budget=None, **options):
    method = PDP(
        sparsity=sparsity,
        pattern=pattern,
        budget=budget or Uniform(),
        schedule=Constant(0.0),
        exclude=[],
        **{"tau": tau, "tau_end": None, "tau_relative": True, "threshold_gradient": False}
        | {"start_accuracy": None, "start_patience": 1, "harden_at": 1.0, **options},
    )
    method.setup(model, Setting(task=Headline(), batches=[{"inputs": inputs}], timeline=Timeline(5, 10), seed=0))
    return method


def channel(gate="norm", norm="l2"):
    return Channel(norm=norm, gate=gate)


def test_a_channel_is_scaled_behind_its_norm_by_the_soft_mask_of_its_filters():
    model, plain = network(), network()
    method = pdp(model, channel())
    method.before_step(0)
    tied = torch.stack([plain.stem.weight.square().sum((1, 2, 3)), plain.branch.weight.square().sum((1, 2, 3))]).sum(0)
    ordered = tied.sqrt().sort().values
    t_squared = (0.5 * (ordered[2] + ordered[3])) ** 2
    mask = torch.sigmoid((tied - t_squared) / (0.3 * t_squared))
    alone = plain.plain.weight.square().sum((1, 2, 3))
    edges = alone.sqrt().sort().values
    plain_t = (0.5 * (edges[1] + edges[2])) ** 2
    plain_mask = torch.sigmoid((alone - plain_t) / (0.3 * plain_t))
    with torch.no_grad():
        for norm in (plain.norm, plain.branch_norm):
            norm.weight.mul_(mask)
            norm.bias.mul_(mask)
        plain.plain.weight.mul_(plain_mask.view(-1, 1, 1, 1))
        plain.plain.bias.mul_(plain_mask)
    assert torch.allclose(model(INPUTS), plain(INPUTS))


@pytest.mark.parametrize("norm", ["l2", "l2/fan_in", "l1"])
@pytest.mark.parametrize("gate", ["norm", "filter"])
def test_gradients_agree_with_finite_differences(gate, norm):
    model = network()
    method = pdp(model, channel(gate, norm))
    method.before_step(0)
    model(INPUTS).square().sum().backward()
    for parameter in method.weights.values():
        for index in range(0, parameter.numel(), 1 + parameter.numel() // 5):
            entry = parameter.data.view(-1)[index : index + 1]
            sides = []
            for step in (1e-6, -2e-6):
                entry += step
                with torch.no_grad():
                    sides.append(model(INPUTS).square().sum())
            entry += 1e-6
            slope = (sides[0] - sides[1]) / 2e-6
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-6)


def test_a_filter_that_the_mask_prunes_still_gets_gradient():
    model = network()
    method = pdp(model, channel(), tau=2.0)
    method.before_step(0)
    model(INPUTS).square().sum().backward()
    keep = method.groups["plain.weight"].keep(method.magnitudes, 0.5)[0]
    assert not keep.all()
    assert all(method.weights["plain.weight"].grad[~keep].abs().sum((1, 2, 3)) > 0)


@pytest.mark.parametrize("gate", ["norm", "filter"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8])
def test_finalize_prunes_whole_channels_with_their_norms_and_biases(gate, sparsity):
    model = network()
    method = pdp(model, channel(gate), sparsity=sparsity)
    method.before_step(0)
    with method.hardened(), torch.no_grad():
        hard = model(INPUTS)
    masks = method.finalize()
    for part in ("stem.weight", "norm.weight", "norm.bias", "branch_norm.bias", "stem.bias"):
        assert torch.equal(masks[part].flatten(), masks["branch.weight"].flatten())
    assert int((~masks["stem.weight"]).sum()) == round(sparsity * 6)
    assert int((~masks["plain.weight"]).sum()) == min(round(sparsity * 4), 3)
    assert "head.weight" not in masks
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
        assert torch.equal(model(INPUTS), hard)
    assert method.sparsity() == sum(int((model.get_parameter(name) == 0).sum()) for name in masks) / sum(
        model.get_parameter(name).numel() for name in masks
    )


def test_the_unpruned_network_is_untouched_before_pruning_begins():
    model, plain = network(), network()
    pdp(model, channel())
    assert torch.equal(model(INPUTS), plain(INPUTS))


def test_early_hard_masks_open_the_gates():
    model, plain = network(), network()
    method = pdp(model, channel(), harden_at=0.5)
    method.before_step(4)
    assert not torch.allclose(model(INPUTS), plain(INPUTS))
    assert method.before_step(5)
    assert method.masks
    assert torch.equal(model(INPUTS), plain(INPUTS))  # the trainer zeroes the weights from now on


def test_a_network_of_texts_has_no_channels():
    with pytest.raises(ValueError, match=r"pattern=channel: is for networks of images"):
        pdp(network(), channel(), inputs={"input_ids": torch.ones(1, 3)})


def test_a_network_that_cannot_be_traced_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            raise RuntimeError("no such thing")

    with pytest.raises(ValueError, match=r"pattern=channel: the channels of Odd cannot be traced .*no such thing"):
        pdp(Odd(), channel())


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    return BertForSequenceClassification(BertConfig(vocab_size=30, max_position_embeddings=16, **sizes)).double().eval()


TOKENS = {"input_ids": torch.arange(3, 13).view(2, 5)}


def test_heads_and_ffn_units_meet_a_target_together():
    model = bert()
    pattern = Transformer(units=["heads", "ffn"], norm="l2/fan_in")
    method = pdp(model, pattern, inputs=TOKENS, budget=Global())
    dense = model(**TOKENS).logits
    method.before_step(0)
    assert not torch.allclose(model(**TOKENS).logits, dense)
    with method.hardened(), torch.no_grad():
        hard = model(**TOKENS).logits
    masks = method.finalize()
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
        assert torch.equal(model(**TOKENS).logits, hard)
    prunable = sum(parameter.numel() for parameter in method.weights.values())
    assert abs(zeros(masks, method.weights) - 0.5 * prunable) <= 25  # an FFN unit has 25 weights, a head 204


def test_sub_layers_go_as_a_whole():
    model = bert()
    method = pdp(model, Transformer(units=["attention_layers", "ffn_layers"], norm="l2"), inputs=TOKENS)
    method.before_step(0)
    model(**TOKENS).logits.sum().backward()
    masks = method.finalize()
    gone = [layer for layer in (0, 1) if not masks[f"bert.encoder.layer.{layer}.output.dense.bias"].any()]
    assert len(gone) == 1
    assert not masks[f"bert.encoder.layer.{gone[0]}.intermediate.dense.weight"].any()


def test_units_that_contain_each_other_are_refused():
    with pytest.raises(ValueError, match=r"heads are part of attention_layers, and this method ranks units"):
        pdp(bert(), Transformer(units=["heads", "attention_layers"], norm="l2"), inputs=TOKENS)
    with pytest.raises(ValueError, match=r"pattern\.units=\['tails'\]"):
        Transformer(units=["tails"], norm="l2")


def test_a_network_without_an_encoder_is_named():
    with pytest.raises(ValueError, match=r"ConvNet has no encoder layers named as in BERT"):
        pdp(network(), Transformer(units=["heads"], norm="l2"))


def test_blocks_go_as_a_whole_under_soft_masks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)).double()
    method = pdp(model, Block(rows=3, columns=4))
    method.before_step(0)
    weight = method.weights["0.weight"]
    assert torch.autograd.gradcheck(method.soft_masks["0.weight"], weight)
    masks = method.finalize()
    blocks = masks["0.weight"].view(4, 3, 2, 4).sum((1, 3))
    assert sorted(blocks.flatten().tolist()) == [0] * 4 + [12] * 4
