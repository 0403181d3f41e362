"""Units in units: what they weigh, and which are closed to meet a sparsity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruneexp.groups import Norm, Slice, SliceGroup
from pruneexp.masks import apply_masks_, zeros
from pruneexp.models.encoder_layers import unit_groups
from pruneexp.models.hidden_units import hidden_group
from pruneexp.nesting import Nesting
from pruneexp.surgery.channel_groups import channel_groups
from pruneexp.surgery.shrink import shrink

KINDS = ("attention_layers", "heads", "ffn_layers", "ffn")
WITH_HIDDEN = (*KINDS, "hidden")


def bert(**sizes):
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20, **sizes}
    return BertModel(BertConfig(vocab_size=30, max_position_embeddings=16, **sizes), add_pooling_layer=False)


def distilbert():
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}
    return DistilBertModel(DistilBertConfig(vocab_size=30, max_position_embeddings=16, **sizes))


def nesting_of(model, kinds=KINDS):
    groups = [group for kind in kinds if kind != "hidden" for group in unit_groups(model, kind, Norm("l2"))]
    groups += [hidden_group(model, Norm("l2"))] if "hidden" in kinds else []
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for group in groups for name in group.parameters}
    return Nesting(groups, sum(weight.numel() for weight in weights.values())), weights


def resnet():
    from pruneexp.models.cifar_resnet import ResNet

    model = ResNet(blocks=1, channels=1, num_outputs=3)
    weights = {name for name, value in model.named_parameters() if value.ndim == 4}
    groups = channel_groups(model, torch.randn(1, 1, 8, 8), weights=weights, norm=Norm("l2"), gate_norms=True)
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for group in groups for name in group.parameters}
    return Nesting(groups, sum(weight.numel() for weight in weights.values())), weights


@pytest.fixture(scope="module")
def base_layer():
    """One layer of BERT-base; all twelve are alike."""
    return nesting_of(bert(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, intermediate_size=3072))[0]


def test_sizes_of_bert_base_are_those_of_cofi(base_layer):
    assert 12 * base_layer.total == 85_017_600
    parts = base_layer.split(base_layer.own)
    assert parts.pop("attention_layers").tolist() == parts.pop("ffn_layers").tolist() == [768]
    heads, ffn = parts.values()
    assert set(heads.tolist()) == {196_864 - 768 // 12}  # CoFi: and a twelfth of the output's bias
    assert set(ffn.tolist()) == {1_537}


def test_expected_size_is_cofis_but_for_the_two_output_biases(base_layer):
    openness = torch.rand(3072 + 12 + 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (mha,), heads, (ffn,), units = base_layer.split(openness).values()
    cofi = float(mha * heads.sum() * 196_864 + ffn * units.sum() * 1_537)
    biases = float(mha * (768 - 64 * heads.sum()) + ffn * 768)
    assert abs(biases) <= 2 * 768
    assert float(1 - base_layer.sparsity(openness)) * base_layer.total == pytest.approx(cofi + biases, abs=1e-3)


def test_expected_size_with_hidden_dimensions_is_cofis_but_for_the_biases():
    """CoFi: each head has 196,864 weights and each FFN unit 1,537 (here 1,536), spread over 768 hidden dimensions."""
    sizes = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 3072}
    nesting, _ = nesting_of(bert(**sizes), WITH_HIDDEN)
    openness = torch.rand(len(nesting.own), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = nesting.split(openness)
    hidden = float(parts.pop("hidden").sum())
    (mha,), heads, (ffn,), units = parts.values()
    matrices = float(mha * heads.sum() * 4 * 64 + ffn * units.sum() * 2) * hidden
    biases = float(mha * heads.sum() * 3 * 64 + ffn * units.sum()) + float(mha + ffn) * hidden
    assert float(1 - nesting.sparsity(openness)) * nesting.total == pytest.approx(matrices + biases, abs=1e-3)
    assert nesting.total == 85_017_600 // 12


@pytest.mark.parametrize(
    "make",
    [
        lambda: nesting_of(bert()),
        lambda: nesting_of(distilbert()),
        lambda: nesting_of(bert(), WITH_HIDDEN),
        lambda: nesting_of(distilbert(), WITH_HIDDEN),
        lambda: nesting_of(bert(), ("heads", "hidden")),
        lambda: nesting_of(bert(), ("hidden",)),
        resnet,
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_expected_sparsity_of_decided_gates_is_that_of_their_masks(make, share):
    nesting, weights = make()
    uniform = torch.rand(len(nesting.own), generator=torch.Generator().manual_seed(1))
    keep = nesting.without_empty_holders(uniform < share)
    pruned = zeros(nesting.masks(keep), weights)
    assert nesting.pruned(keep) == pruned
    assert float(nesting.sparsity(keep.double())) == pytest.approx(pruned / nesting.total, abs=1e-12)


def test_a_closed_sub_layer_loses_every_weight_and_the_bias_of_its_output():
    nesting, weights = nesting_of(bert())
    keep = torch.ones(len(nesting.own), dtype=torch.bool)
    nesting.split(keep)["attention_layers"][1] = False
    masks = nesting.masks(keep)
    gone = [name for name in weights if not masks[name].any()]
    attention = "encoder.layer.1.attention."
    modules = [attention + f"self.{part}" for part in ("query", "key", "value")] + [attention + "output.dense"]
    assert sorted(gone) == sorted(f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias"))
    assert zeros(masks, weights) == nesting.pruned(keep) == 4 * (12 * 12 + 12)


@pytest.mark.parametrize("kinds", [KINDS, WITH_HIDDEN])
def test_expected_sparsity_has_the_gradient_of_finite_differences(kinds):
    nesting, _ = nesting_of(bert(num_hidden_layers=1, intermediate_size=3), kinds)
    openness = torch.rand(len(nesting.own), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(nesting.sparsity, openness.requires_grad_())


def columns(name, *widths):
    """A group of one tensor whose units are that many columns wide, all the same."""
    unit = torch.tensor([index for index, width in enumerate(widths) for _ in range(width)])
    part = Slice(name, 1, unit)
    return SliceGroup(
        name, tensors={name: torch.zeros(1, sum(widths))}, slices=[part], scored=[part], gates=[part], norm=Norm("l2")
    )


def outer(name, *inner):
    """A group with one unit for each of some tensors, and a weight of its own in each."""
    parts = [Slice(part.name, 0, torch.full((1,), unit)) for unit, part in enumerate(inner)]
    parts += [Slice(f"bias{unit}", 0, torch.full((1,), unit)) for unit in range(len(inner))]
    tensors = {part.name: torch.zeros(1, part.unit_count * part.unit_size) for part in inner}
    tensors |= {f"bias{unit}": torch.zeros(1) for unit in range(len(inner))}
    return SliceGroup(name, tensors=tensors, slices=parts, scored=parts, gates=parts, norm=Norm("l2"))


def closest(groups, openness, sparsity, total):
    nesting = Nesting(groups, total)
    keep = nesting.closest(torch.tensor(openness), sparsity)
    return {name: part.int().tolist() for name, part in nesting.split(keep).items()}, nesting.pruned(keep)


def test_units_of_all_groups_compete_by_the_product_with_their_holder():
    a, b = columns("a", 2, 2, 2), columns("b", 2, 2, 2)
    groups = [outer("layers", a, b), a, b]  # 14 weights: 6 + 1 in each layer
    openness = [0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.3, 0.34]  # times 1/2 for a: 0.45, 0.4, 0.35
    kept, pruned = closest(groups, openness, 6 / 14, 14)
    assert kept == {"layers": [1, 1], "a": [1, 1, 0], "b": [1, 0, 0]}
    assert pruned == 6


def test_a_holder_closes_with_the_last_unit_in_it():
    a, b = columns("a", 2, 2), columns("b", 2, 2)
    kept, pruned = closest([outer("layers", a, b), a, b], [0.1, 0.9, 0.9, 0.9, 0.9, 0.9], 0.5, 10)
    assert kept == {"layers": [0, 1], "a": [0, 0], "b": [1, 1]}
    assert pruned == 5


def test_a_group_without_a_holder_keeps_its_best_unit():
    kept, pruned = closest([columns("a", 1, 1, 1), columns("b", 1, 1)], [0.1, 0.2, 0.1, 0.9, 0.8], 0.9, 5)
    assert kept == {"a": [0, 1, 0], "b": [1, 0]}
    assert pruned == 3


def test_of_equal_units_the_later_ones_are_closed():
    assert closest([columns("a", 1, 1, 1, 1)], [0.5] * 4, 0.5, 4)[0] == {"a": [1, 1, 0, 0]}


def test_a_unit_too_large_is_passed_over():
    kept, pruned = closest([columns("a", 5, 5), columns("b", 1, 1, 1)], [0.1, 0.9, 0.5, 0.4, 0.6], 2 / 13, 13)
    assert kept == {"a": [1, 1], "b": [0, 0, 1]}
    assert pruned == 2


def test_smaller_units_are_opened_again_where_a_larger_one_comes_closer():
    """8 of 23: six small ones, of which one has to stay, leave 2 missing; a large one alone is exact."""
    small = columns("b", *[1] * 7)
    kept, pruned = closest([columns("a", 8, 8), small], [0.9, 0.8, *[0.1] * 7], 8 / 23, 23)
    assert pruned == 8
    assert kept == {"a": [1, 0], "b": [1] * 7}


def test_a_unit_is_worth_less_where_hidden_dimensions_are_closed():
    """Two heads of 10 weights, of which each of five hidden dimensions has 2: closing one of these prunes 4, then 2."""
    weight, norm = torch.zeros(4, 5), Norm("l2")
    heads, hidden = [Slice("w", 0, torch.tensor([0, 0, 1, 1]))], [Slice("w", 1, torch.arange(5))]
    groups = [
        SliceGroup("heads", tensors={"w": weight}, slices=heads, scored=heads, gates=heads, norm=norm),
        SliceGroup("hidden", tensors={"w": weight}, slices=hidden, scored=hidden, gates=hidden, norm=norm, across=True),
    ]
    openness = [0.9, 0.3, 0.1, 0.2, 0.9, 0.9, 0.9]
    assert closest(groups, openness, 8 / 20, 20) == ({"heads": [1, 1], "hidden": [0, 0, 1, 1, 1]}, 8)
    assert closest(groups, openness, 14 / 20, 20) == ({"heads": [1, 0], "hidden": [0, 0, 1, 1, 1]}, 14)
    assert closest(groups, openness, 16 / 20, 20) == ({"heads": [1, 0], "hidden": [0, 0, 1, 1, 0]}, 16)


@pytest.fixture(scope="module")
def encoder():
    return nesting_of(bert())[0]


@pytest.fixture(scope="module")
def encoder_with_hidden():
    return nesting_of(bert(), WITH_HIDDEN)[0]


@given(sparsity=st.floats(0, 1), seed=st.integers(0, 100))
def test_an_encoder_with_hidden_dimensions_comes_within_one_of_them_of_any_sparsity(
    encoder_with_hidden, sparsity, seed
):
    nesting = encoder_with_hidden
    openness = torch.rand(len(nesting.own), generator=torch.Generator().manual_seed(seed))
    keep = nesting.closest(openness, sparsity)
    most = int(nesting.shared.sum())  # what one hidden dimension has in an open network
    assert abs(nesting.pruned(keep) - sparsity * nesting.total) <= most / 2 + 0.5
    assert nesting.split(keep)["hidden"].any()


@given(sparsity=st.floats(0, 1), seed=st.integers(0, 100))
def test_an_encoder_comes_within_an_ffn_unit_of_any_sparsity(encoder, sparsity, seed):
    openness = torch.rand(len(encoder.own), generator=torch.Generator().manual_seed(seed))
    keep = encoder.closest(openness, sparsity)
    assert abs(encoder.pruned(keep) - sparsity * encoder.total) <= 25 + 12 + 0.5  # and the bias of a sub-layer
    assert torch.equal(keep, encoder.without_empty_holders(keep))


def test_all_of_an_encoder_can_go_and_one_channel_of_each_group_stays():
    nesting, _ = nesting_of(bert())
    assert nesting.most() == nesting.total
    nesting, _ = nesting_of(bert(), WITH_HIDDEN)
    assert nesting.most() == nesting.total
    nesting, _ = nesting_of(bert(), kinds=("heads", "ffn"))
    assert nesting.most() == nesting.total - 3 * (204 + 25)
    nesting, _ = nesting_of(bert(), kinds=("heads", "ffn", "hidden"))
    assert nesting.most() == nesting.total - 3 * (4 * 4 + 3 * 4 + 2 + 1) - 2 * 3  # one head and unit, one dimension
    nesting, _ = resnet()
    keep = nesting.closest(torch.rand(len(nesting.own)), 1.0)
    assert {int(part.sum()) for part in nesting.split(keep).values()} == {1}
    assert nesting.pruned(keep) == nesting.most()


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_is_what_the_smaller_encoder_has(seed):
    """Shapes and choices at random: no weight of a linear layer is counted twice or forgotten."""
    draw = torch.Generator().manual_seed(seed)
    layers, heads, head_size, ffn = (int(torch.randint(1, 5, (), generator=draw)) + 1 for _ in range(4))
    sizes = {"hidden_size": heads * head_size, "num_hidden_layers": layers, "num_attention_heads": heads}
    model = bert(**sizes, intermediate_size=7 * ffn).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=draw)
    nesting, weights = nesting_of(model)
    keep = nesting.closest(torch.rand(len(nesting.own), generator=draw), float(torch.rand((), generator=draw)))
    masks = nesting.masks(keep)
    apply_masks_(weights, masks)
    small = shrink(model, masks, {"input_ids": torch.arange(3, 13).view(2, 5)})
    left = [
        parameter.numel()
        for name, parameter in small.encoder.named_parameters()
        if "LayerNorm" not in name and parameter.any()  # of a sub-layer that went, a bias of zeros is left
    ]
    assert sum(left) == nesting.total - nesting.pruned(keep)
    assert nesting.total == sum(p.numel() for name, p in model.encoder.named_parameters() if "LayerNorm" not in name)
