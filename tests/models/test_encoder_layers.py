"""Units of transformer encoders: what belongs to them, and that a pruned one passes on nothing."""

import pytest
import torch

from pruneexp.groups import Norm, merged
from pruneexp.masks import apply_masks_
from pruneexp.models.encoder_layers import encoder_layers, unit_groups


def bert(**sizes):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, **sizes}
    return BertForSequenceClassification(BertConfig(vocab_size=30, max_position_embeddings=16, **sizes))


def roberta():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    return RobertaForSequenceClassification(RobertaConfig(vocab_size=30, max_position_embeddings=16, **sizes))


def distilbert():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    sizes = {"dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}
    return DistilBertForSequenceClassification(DistilBertConfig(vocab_size=30, max_position_embeddings=16, **sizes))


def ready(make):
    torch.manual_seed(0)
    network = make().double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return network


def outputs(network):
    with torch.no_grad():
        return network(input_ids=torch.arange(3, 13).view(2, 5)).logits


@pytest.mark.parametrize("make", [bert, roberta, distilbert])
def test_the_layers_of_known_encoders_are_found(make):
    layers = encoder_layers(make())
    assert len(layers) == 2
    assert layers[0].head_size == 4


def test_sizes_of_berts_units_are_those_of_cofi():
    network = bert(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, intermediate_size=3072)
    heads, ffn = (unit_groups(network, kind, Norm("l2"))[0] for kind in ("heads", "ffn"))
    # CoFi's 196,864 also counts a twelfth of the output projection's bias, which no single head owns
    assert (heads.unit_count, heads.unit_size) == (12, 196_864 - 64)
    assert (ffn.unit_count, ffn.unit_size) == (3072, 1_537)


@pytest.mark.parametrize("make", [bert, roberta, distilbert])
@pytest.mark.parametrize("kind", ["heads", "ffn", "attention_layers", "ffn_layers"])
def test_a_unit_that_is_switched_off_is_as_good_as_masked(make, kind):
    network, other = ready(make), ready(make)
    dense = outputs(network)
    masks, switched = [], {}
    for group in unit_groups(network, kind, Norm("l2")):
        keep = torch.arange(group.unit_count)[None] > 0  # the first unit goes
        masks.append(group.masks(keep))
        for part in group.switches:
            factor = part.expand(keep[0].double(), len(group.shapes[part.parameter]))
            switched[part.parameter] = switched.get(part.parameter, 1) * factor
    apply_masks_(dict(network.named_parameters()), merged(masks))
    apply_masks_(dict(other.named_parameters()), switched)
    assert torch.allclose(outputs(network), outputs(other), rtol=1e-12)
    assert not torch.equal(outputs(network), dense)
    zeros = sum(int((~mask).sum()) * parameter.numel() // mask.numel() for parameter, mask in paired(network, masks))
    assert zeros == sum(group.unit_size for group in unit_groups(other, kind, Norm("l2")))


def paired(network, masks):
    parameters = dict(network.named_parameters())
    return [(parameters[name], mask) for name, mask in merged(masks).items()]


def test_heads_own_their_rows_and_columns():
    group = unit_groups(bert(), "heads", Norm("l2"))[1]
    masks = group.masks(torch.tensor([[True, False, True]]))
    rows = [True] * 4 + [False] * 4 + [True] * 4
    layer = "bert.encoder.layer.1.attention"
    assert masks[f"{layer}.self.value.weight"].flatten().tolist() == rows
    assert masks[f"{layer}.self.query.bias"].tolist() == rows
    assert masks[f"{layer}.output.dense.weight"].shape == (1, 12)
    assert masks[f"{layer}.output.dense.weight"][0].tolist() == rows
    assert f"{layer}.output.dense.bias" not in masks
    assert [part.parameter for part in group.gates] == [f"{layer}.output.dense.weight"]
