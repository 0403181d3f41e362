"""The residual stream of encoders: which modules are on it, in each family of transformers, and where there is none."""

import pytest
import torch
from torch import nn

from pruneexp.models.hidden_stream import hidden_stream

BERT = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
DISTILBERT = {"dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}
SIZES = {
    "Bert": BERT,
    "Roberta": BERT,
    "XLMRoberta": BERT,
    "Electra": BERT | {"embedding_size": 12},
    "DistilBert": DISTILBERT,
    "RobertaPreLayerNorm": BERT,
}
HEADS = {
    "Bert": ("bert", "bert.pooler.dense"),
    "Roberta": ("roberta", "classifier.dense"),
    "XLMRoberta": ("roberta", "classifier.dense"),
    "Electra": ("electra", "classifier.dense"),
    "DistilBert": ("distilbert", "pre_classifier"),
}


def build(family, task="ForSequenceClassification", **sizes):
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=30, max_position_embeddings=16, **SIZES[family] | sizes
    )
    return getattr(transformers, f"{family}{task}")(config)


def expected_layer(family, layer):
    if family == "DistilBert":
        name = f"transformer.layer.{layer}"
        readers = [f"{name}.attention.{part}_lin" for part in "qkv"] + [f"{name}.ffn.lin1"]
        writers = [f"{name}.attention.out_lin", f"{name}.ffn.lin2"]
        return readers, writers, [f"{name}.sa_layer_norm", f"{name}.output_layer_norm"]
    name = f"encoder.layer.{layer}"
    readers = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")] + [f"{name}.intermediate.dense"]
    writers = [f"{name}.attention.output.dense", f"{name}.output.dense"]
    return readers, writers, [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]


@pytest.mark.parametrize("family", HEADS)
def test_every_module_on_the_stream_is_found_under_its_name(family):
    stream = hidden_stream(build(family))
    encoder, head = HEADS[family]
    layers = [expected_layer(family, layer) for layer in range(2)]
    readers, writers, norms = (
        [f"{encoder}.{name}" for part in parts for name in part] for parts in zip(*layers, strict=True)
    )
    kinds = ["word", "position"] + ["token_type"] * (family != "DistilBert")
    assert stream.width == 12
    assert set(stream.embeddings) == {f"{encoder}.embeddings.{kind}_embeddings" for kind in kinds}
    assert stream.writers == tuple(writers)
    assert stream.readers == (*readers, head)
    assert stream.norms == (f"{encoder}.embeddings.LayerNorm", *norms)


@pytest.mark.parametrize("family", HEADS)
def test_a_plain_encoder_and_a_wrapped_one_have_the_names_they_have_there(family):
    plain = build(family, "Model")
    stream, wrapped = hidden_stream(plain), hidden_stream(nn.ModuleDict({"inner": plain}))
    assert stream.norms[0] == "embeddings.LayerNorm"
    assert [name for name in stream.readers if "layer." not in name] == ["pooler.dense"] * hasattr(plain, "pooler")
    for names in ("embeddings", "writers", "readers", "norms"):
        assert getattr(wrapped, names) == tuple(f"inner.{name}" for name in getattr(stream, names))


@pytest.mark.parametrize("family", HEADS)
def test_a_dimension_that_is_zero_in_what_writes_and_normalises_is_zero_for_all_readers(family):
    network = build(family).eval()
    stream = hidden_stream(network)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        for name in (*stream.embeddings, *stream.writers, *stream.norms):
            module = network.get_submodule(name)
            is_embedding = isinstance(module, nn.Embedding)
            (module.weight[:, 5] if is_embedding else module.weight[5]).zero_()
            if not is_embedding:
                module.bias[5] = 0
    seen = []
    for name in stream.readers:
        network.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.arange(3, 13).view(2, 5))
    assert len(seen) == len(stream.readers) == 9
    assert all((x[..., 5] == 0).all() and (x[..., :5] != 0).all() and (x[..., 6:] != 0).all() for x in seen)


@pytest.mark.parametrize("task", ["ForTokenClassification", "ForQuestionAnswering"])
def test_the_first_linear_layer_behind_the_encoder_reads(task):
    assert hidden_stream(build("Bert", task)).readers[-1] in ("classifier", "qa_outputs")


@pytest.mark.parametrize(
    ("family", "task", "sizes"),
    [
        ("Electra", "ForSequenceClassification", {"embedding_size": 8}),  # projected
        ("RobertaPreLayerNorm", "ForSequenceClassification", {}),  # layers normalise their input
        ("Bert", "ForMaskedLM", {}),  # the decoder shares the word embeddings
        ("Bert", "LMHeadModel", {"is_decoder": True, "add_cross_attention": True}),  # further layers that read
    ],
)
def test_other_streams_are_none(family, task, sizes):
    assert hidden_stream(build(family, task, **sizes)) is None


def test_other_networks_have_none():
    assert hidden_stream(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))) is None
    bert = build("Bert", "Model")
    assert hidden_stream(nn.ModuleList([bert, build("Bert", "Model")])) is None
    bert.encoder.layer[1].output.LayerNorm = nn.Identity()
    assert hidden_stream(bert) is None
