"""The shape of a shrunk network as plain data, and a freshly built network brought into that shape.

A state dict says how large the tensors of a shrunk network are, but not how many heads they make, which channels a
parameter-free shortcut copies, or that a sub-layer is gone. `structure` says all of it; it goes into a JSON file beside
the weights, so that no class has to be unpickled to load them:

    structure = json.loads(path.read_text());  restructure_(network, structure);  network.load_state_dict(...)

    {"format": 1, "layers": {name: {"kind": ..., attribute: value, ...}}}

Every layer that surgery can change is listed, changed or not.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut
from pruneexp.surgery.encoders import (
    BiasOnly,
    NoHeads,
    NoUnits,
    attentions,
    feed_forwards,
    number_of_heads,
    remove_attention_,
    remove_feed_forward_,
    set_heads_,
)
from pruneexp.surgery.narrow_norm import NarrowLayerNorm
from pruneexp.surgery.verify import SurgeryError

FORMAT = 1

CLASSES: dict[str, tuple[type, tuple[str, ...]]] = {
    "convolution": (nn.modules.conv._ConvNd, ("in_channels", "out_channels", "groups")),
    "linear": (nn.Linear, ("in_features", "out_features")),
    "embedding": (nn.Embedding, ("num_embeddings", "embedding_dim")),
    "bias_only": (BiasOnly, ("width",)),
    "narrow_norm": (NarrowLayerNorm, ("width", "full_width", "source")),
    "batch_norm": (nn.modules.batchnorm._BatchNorm, ("num_features",)),
    "prelu": (nn.PReLU, ("num_parameters",)),
    "shortcut": (ZeroPadShortcut, ("in_channels", "out_channels", "source")),
}
"""Kind of layer -> its class and the attributes that change with its channels or its hidden dimension."""


def structure(network: nn.Module) -> dict[str, Any]:
    """The structure of a network: numbers, strings, lists and dicts only."""
    heads = {name: number_of_heads(found.attention) for name, found in attentions(network)}
    layers: dict[str, dict[str, Any]] = {name: {"kind": "attention", "heads": count} for name, count in heads.items()}
    for name, module in network.named_modules():
        if isinstance(module, NoHeads | NoUnits):
            layers[name] = {"kind": "no heads" if isinstance(module, NoHeads) else "no units"}
        kind = _kind(module)
        if kind is not None:
            layers[name] = {"kind": kind, **{key: getattr(module, key) for key in CLASSES[kind][1]}}
            if kind in ("convolution", "linear"):
                layers[name]["bias"] = module.bias is not None
    return {"format": FORMAT, "layers": layers}


@torch.no_grad()
def restructure_(network: nn.Module, structure: Mapping[str, Any]) -> None:
    """Gives a freshly built network the structure of a shrunk one, in place, so that its state dict fits.

    Weights keep their first rows and columns, new biases are zero: values that are meant to be loaded over.

    Raises:
        SurgeryError: the structure is not one that `structure` returned, or belongs to another network.
    """
    try:
        version, layers = structure["format"], dict(structure["layers"])
    except (KeyError, TypeError, ValueError) as error:
        raise SurgeryError(f"structure: is not what pruneexp writes ({error!r}); export the run again") from error
    if version != FORMAT:
        raise SurgeryError(f"structure: has format {version}, this version reads {FORMAT}; export the run again")
    own_attentions, own_feed_forwards = dict(attentions(network)), dict(feed_forwards(network))
    for name, entry in layers.items():
        try:
            if entry["kind"] == "no heads":
                remove_attention_(own_attentions[name])
            elif entry["kind"] == "no units":
                remove_feed_forward_(own_feed_forwards[name])
            elif entry["kind"] == "attention":
                set_heads_(own_attentions[name].attention, entry["heads"])
            elif entry["kind"] == "narrow_norm":
                network.set_submodule(name, _narrow(network.get_submodule(name), entry))
            else:
                _reshape_(network.get_submodule(name), entry)
        except (KeyError, AttributeError, TypeError, IndexError) as error:
            raise SurgeryError(
                f"structure: {name} does not fit the {type(network).__name__} ({error}); build the model it was "
                "written for"
            ) from error


def _kind(module: nn.Module) -> str | None:
    return next((kind for kind, (cls, _) in CLASSES.items() if isinstance(module, cls)), None)


def _narrow(norm: nn.Module, entry: Mapping[str, Any]) -> NarrowLayerNorm:
    """The norm of an entry, for a whole one."""
    width, full_width, source = entry["width"], entry["full_width"], entry["source"]
    if not isinstance(norm, nn.LayerNorm) or norm.normalized_shape != (full_width,) or not 0 < width < full_width:
        raise TypeError(f"{width} of {full_width} dimensions are not of this {norm}")
    if source is not None and sorted(source) != [-1] * (full_width - width) + list(range(width)):
        raise TypeError(f"its source does not name each of {width} dimensions once")
    return NarrowLayerNorm(width, full_width, norm.eps, source).to(norm.weight)


def _reshape_(layer: nn.Module, entry: Mapping[str, Any]) -> None:
    """Gives one layer the attributes of its entry, and its tensors the shapes that follow."""
    kind = entry["kind"]
    if _kind(layer) != kind:
        raise TypeError(f"it is a {type(layer).__name__}")
    for key in CLASSES[kind][1]:
        setattr(layer, key, entry[key])
    if kind == "shortcut":
        return
    outputs, shape = _shape(layer, entry)
    _resize_(layer, "weight", shape)
    if kind in ("convolution", "linear"):
        if not entry["bias"]:
            layer.bias = None
        elif layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(outputs))
    for key in ("bias", "running_mean", "running_var"):
        _resize_(layer, key, (outputs,))


def _shape(layer: nn.Module, entry: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """The outputs of a layer and the shape of its weight."""
    kind = entry["kind"]
    if kind == "linear":
        return layer.out_features, (layer.out_features, layer.in_features)
    if kind == "embedding":
        return layer.embedding_dim, (layer.num_embeddings, layer.embedding_dim)
    if kind != "convolution":
        count = entry[CLASSES[kind][1][0]]
        return count, (count,)
    inputs, outputs, groups = layer.in_channels, layer.out_channels, layer.groups
    sizes = (inputs, outputs // groups) if layer.transposed else (outputs, inputs // groups)
    return outputs, (*sizes, *layer.weight.shape[2:])


def _resize_(layer: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Cuts a parameter or buffer, where there is one and it has another shape, to this shape."""
    old = getattr(layer, name, None)
    if old is None or tuple(old.shape) == shape:
        return
    if len(old.shape) != len(shape) or any(new > size for new, size in zip(shape, old.shape, strict=True)):
        raise TypeError(f"its {name} has shape {tuple(old.shape)}, less than {shape}")
    tensor = old.detach()[tuple(slice(size) for size in shape)].clone()
    setattr(layer, name, nn.Parameter(tensor, requires_grad=old.requires_grad) if name in layer._parameters else tensor)
