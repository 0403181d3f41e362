"""The parts of a transformer encoder's layers, and the units in them that can go: heads, FFN units, whole sub-layers.

Encoders are known by the names of their modules: those of BERT (also RoBERTa, ELECTRA and others that copy it) and of
DistilBERT, as in transformers 5.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass

import torch
from torch import nn

from pruneexp.groups import Norm, Slice, SliceGroup

BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
}
DISTILBERT = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "ffn_input": "ffn.lin1",
    "ffn_output": "ffn.lin2",
}


@dataclass(frozen=True)
class EncoderLayer:
    """One layer: the names of its linear modules in the network, and the width of a head.

    query, key, value: (heads x head_size, hidden). attention_output: (hidden, heads x head_size). ffn_input:
    (units, hidden). ffn_output: (hidden, units).
    """

    name: str
    head_size: int
    query: str
    key: str
    value: str
    attention_output: str
    ffn_input: str
    ffn_output: str


def encoder_layers(network: nn.Module) -> list[EncoderLayer]:
    """The encoder layers of a network in order; none where it has no encoder of a known kind."""
    modules = dict(network.named_modules())
    layers = []
    for name in modules:
        for names in (BERT, DISTILBERT):
            paths = {part: f"{name}.{path}" for part, path in names.items()}
            if all(isinstance(modules.get(path), nn.Linear) for path in paths.values()):
                attention = modules[paths["query"].rpartition(".")[0]]
                layers.append(EncoderLayer(name, attention.attention_head_size, **paths))
    return layers


def unit_groups(network: nn.Module, kind: str, norm: Norm, weights: Container[str] | None = None) -> list[SliceGroup]:
    """The groups of one kind of unit of an encoder.

    kind: "heads", a group for each layer's attention heads; "ffn", one for each layer's FFN units; "attention_layers"
    and "ffn_layers", one group of the sub-layers of all layers. weights: names of the weights that may be pruned, None
    for all; a sub-layer with any other weight is left out.

    Where a unit is scaled: heads at the columns of the attention's output projection, FFN units at those of the FFN's,
    sub-layers at these projections with their biases.
    """
    parameters = dict(network.named_parameters())
    modules_of = _attention_modules if kind in ("heads", "attention_layers") else _ffn_modules
    layers = [
        layer
        for layer in encoder_layers(network)
        if weights is None or all(f"{module}.weight" in weights for module in modules_of(layer))
    ]
    if kind in ("heads", "ffn"):
        builder: Callable[..., SliceGroup] = _heads if kind == "heads" else _ffn_units
        return [builder(layer, parameters, norm) for layer in layers]
    return [_sub_layers(kind, [modules_of(layer) for layer in layers], parameters, norm)] if layers else []


def _heads(layer: EncoderLayer, parameters: dict[str, nn.Parameter], norm: Norm) -> SliceGroup:
    width = parameters[f"{layer.query}.weight"].shape[0]
    unit = torch.arange(width) // layer.head_size
    rows = [(f"{module}.{leaf}", 0) for module in (layer.query, layer.key, layer.value) for leaf in ("weight", "bias")]
    return _columns_group("heads", rows, (f"{layer.attention_output}.weight", 1), unit, parameters, norm=norm)


def _ffn_units(layer: EncoderLayer, parameters: dict[str, nn.Parameter], norm: Norm) -> SliceGroup:
    unit = torch.arange(parameters[f"{layer.ffn_input}.weight"].shape[0])
    rows = [(f"{layer.ffn_input}.{leaf}", 0) for leaf in ("weight", "bias")]
    return _columns_group("ffn", rows, (f"{layer.ffn_output}.weight", 1), unit, parameters, norm=norm)


def _columns_group(
    kind: str,
    rows: list[tuple[str, int]],
    columns: tuple[str, int],
    unit: torch.Tensor,
    parameters: dict[str, nn.Parameter],
    *,
    norm: Norm,
) -> SliceGroup:
    """Units of rows of some matrices and columns of one, where they are scaled."""
    slices = [Slice(name, dim, unit) for name, dim in (*rows, columns) if name in parameters]
    return SliceGroup(
        columns[0],
        tensors=parameters,
        slices=slices,
        scored=[part for part in slices if part.parameter.endswith(".weight")],
        gates=slices[-1:],
        norm=norm,
        kind=kind,
    )


def _attention_modules(layer: EncoderLayer) -> list[str]:
    return [layer.query, layer.key, layer.value, layer.attention_output]


def _ffn_modules(layer: EncoderLayer) -> list[str]:
    return [layer.ffn_input, layer.ffn_output]


def _sub_layers(kind: str, layers: list[list[str]], parameters: dict[str, nn.Parameter], norm: Norm) -> SliceGroup:
    """One unit for each sub-layer. layers: the modules of each, the one last whose output is scaled."""
    slices, gates = [], []
    for unit, modules in enumerate(layers):
        for module in modules:
            for leaf in ("weight", "bias"):
                name = f"{module}.{leaf}"
                if name in parameters:
                    part = Slice(name, 0, torch.full((parameters[name].shape[0],), unit))
                    slices.append(part)
                    if module == modules[-1]:
                        gates.append(part)
    return SliceGroup(
        kind,
        tensors=parameters,
        slices=slices,
        scored=[part for part in slices if part.parameter.endswith(".weight")],
        gates=gates,
        norm=norm,
        kind=kind,
    )
