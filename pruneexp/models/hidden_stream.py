"""The hidden dimension of a transformer encoder: every module that writes to the residual stream or reads it.

In encoders built like BERT's (Devlin et al. 2019, arXiv:1810.04805), embeddings are summed and normalised, every
sub-layer adds its output to its input, and a LayerNorm behind each addition makes the input of the next. So one hidden
dimension is a column of every embedding, a weight and a bias of every LayerNorm, a row and a bias of every linear
layer that writes, and a column of every linear layer that reads.
"""

from dataclasses import dataclass

from torch import nn

from pruneexp.models.encoder_layers import EncoderLayer, encoder_layers

NORMS = (("attention.output.LayerNorm", "output.LayerNorm"), ("sa_layer_norm", "output_layer_norm"))
"""The LayerNorms behind attention and feed-forward sub-layer, by their names in a layer: of BERT, of DistilBERT."""


@dataclass(frozen=True)
class HiddenStream:
    """The residual stream of an encoder: the names of the modules on it, each kind in order.

    width: H, the hidden dimensions. embeddings: nn.Embedding (entries, H), summed to begin the stream. writers:
    nn.Linear (H, inputs), added to it. readers: nn.Linear (outputs, H) that it goes into; the last is the first linear
    layer behind the encoder layers, where there is one. norms: nn.LayerNorm (H,), that of the embeddings first.
    """

    width: int
    embeddings: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    norms: tuple[str, ...]

    @property
    def behind(self) -> tuple[str, ...]:
        """The readers behind the encoder layers, each of which has two writers and four readers."""
        return self.readers[2 * len(self.writers) :]


def hidden_stream(network: nn.Module) -> HiddenStream | None:
    """The stream of the one encoder in a network, wherever it sits in it. The network must be plain.

    None where there is no encoder of a known kind, or more than one, or where the stream is another: layers that
    normalise their input; embeddings that are projected, or that another module shares; further layers on the way.
    """
    modules = dict(network.named_modules())
    layers = encoder_layers(network)
    stacks = {layer.name.rpartition(".")[0].rpartition(".")[0] for layer in layers}  # "bert.encoder"
    if len(stacks) != 1:
        return None
    stack = stacks.pop()
    first = f"{stack.rpartition('.')[0]}.embeddings".removeprefix(".")
    embeddings = [name for name in modules if name.startswith(f"{first}.") and isinstance(modules[name], nn.Embedding)]
    readers = [name for layer in layers for name in (layer.query, layer.key, layer.value, layer.ffn_input)]
    writers = [name for layer in layers for name in (layer.attention_output, layer.ffn_output)]
    norms = [f"{first}.LayerNorm", *(name for layer in layers for name in _norms(layer, modules))]
    owners = {name.rpartition(".")[0] for name, _ in network.named_parameters(remove_duplicate=False)}
    unknown = owners - {*embeddings, *readers, *writers, *norms}
    behind = [name for name in modules if name in unknown and isinstance(modules[name], nn.Linear)]
    stream = HiddenStream(
        width=modules[writers[0]].out_features,
        embeddings=tuple(embeddings),
        writers=tuple(writers),
        readers=(*readers, *behind[:1]),
        norms=tuple(norms),
    )
    on_the_way = any(name.startswith((first, stack)) for name in unknown)
    return stream if not on_the_way and _fits(stream, modules) and not _shares(network, embeddings) else None


def _norms(layer: EncoderLayer, modules: dict[str, nn.Module]) -> list[str]:
    """The LayerNorms of a layer under the names of one kind of encoder; none where it has others."""
    found = ([f"{layer.name}.{name}" for name in names] for names in NORMS)
    return next((names for names in found if all(name in modules for name in names)), [])


def _fits(stream: HiddenStream, modules: dict[str, nn.Module]) -> bool:
    """Whether all modules of a stream are there, of their kind and of its width."""
    sizes = [(stream.embeddings, nn.Embedding, "embedding_dim"), (stream.writers, nn.Linear, "out_features")]
    sizes += [(stream.readers, nn.Linear, "in_features")]
    fitting = all(
        isinstance(modules[name], cls) and getattr(modules[name], size) == stream.width
        for names, cls, size in sizes
        for name in names
    )
    norms = [modules.get(name) for name in stream.norms]
    normal = all(
        isinstance(norm, nn.LayerNorm) and norm.normalized_shape == (stream.width,) and norm.bias is not None
        for norm in norms
    )
    # Each sub-layer has a writer, and a norm behind it.
    return fitting and normal and bool(stream.embeddings) and len(norms) == 1 + len(stream.writers)


def _shares(network: nn.Module, embeddings: list[str]) -> bool:
    """Whether another module has the weight of one of the embeddings, as the decoder of a language model does."""
    names: dict[int, int] = {}
    for _, parameter in network.named_parameters(remove_duplicate=False):
        names[id(parameter)] = names.get(id(parameter), 0) + 1
    return any(names[id(network.get_submodule(name).weight)] > 1 for name in embeddings)
