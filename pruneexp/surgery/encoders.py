"""Removing attention heads and feed-forward units of transformer encoders, where that leaves the function as it is.

Known layouts are those of BERT, which RoBERTa, ELECTRA, XLM-R, CamemBERT and others share, and of DistilBERT. A head
can go if the output projection takes nothing from it: its columns there are zero, or its values are, weight rows and
biases. A feed-forward unit can go if its output column is zero, or its input row is, so that it is the constant
act(bias): zero for a bias of zero and GELU or ReLU, else folded into the output's bias.

A sub-layer without heads or units leaves behind its output bias, which the residual connection and LayerNorm go on to
use: `BiasOnly` is all that is left of it. CoFi's code drops that LayerNorm too (Xia, Zhong, Chen 2022,
arXiv:2204.00408, its public code), which is another function.

Hidden dimensions leave by `pruneexp.surgery.hidden`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruneexp.surgery.cut import cut_
from pruneexp.surgery.report import Kept


class BiasOnly(nn.Module):
    """What is left of an output projection whose inputs are gone: (..., anything) -> (..., width), the bias everywhere.

    bias: (width,), zeros for a projection without one. width: of the bias.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.width = len(bias)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """The bias, in the shape of x but for the last dimension."""
        # Not an expanded view: without gradients, views of parameters still claim to require one, which confuses torch.
        return x.new_zeros(*x.shape[:-1], 1) + self.bias


class NoHeads(nn.Module):
    """An attention module without heads: passes its input on to what ignores it. There are no attention weights.

    out_lin: the output projection's `BiasOnly` where it is part of the attention module, as in DistilBERT.
    """

    def __init__(self, out_lin: BiasOnly | None = None) -> None:
        super().__init__()
        self.out_lin = out_lin

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        """(batch, length, width) -> the output projection's bias, or the input; and None."""
        return (hidden_states if self.out_lin is None else self.out_lin(hidden_states)), None


class NoUnits(nn.Identity):
    """The input layer of a feed-forward sub-layer without units: passes its input on to what ignores it."""


@dataclass(frozen=True)
class Attention:
    """An attention sub-layer. attention: the module with the projections and the number of heads. names: of the query,
    key and value projections in it. outer, output: the module that holds the output projection, and its name there.
    owner, key: where `attention` hangs.
    """

    attention: nn.Module
    names: tuple[str, str, str]
    outer: nn.Module
    output: str
    owner: nn.Module
    key: str

    @property
    def projection(self) -> nn.Linear:
        """The output projection."""
        return getattr(self.outer, self.output)


@dataclass(frozen=True)
class FeedForward:
    """A feed-forward sub-layer: the modules that hold input layer, activation and output layer, and their names."""

    first: tuple[nn.Module, str]
    activation: tuple[nn.Module, str]
    second: tuple[nn.Module, str]


HEADS = ("num_attention_heads", "n_heads", "num_heads")
"""How attention modules call the number of their heads."""


def attentions(network: nn.Module) -> Iterator[tuple[str, Attention]]:
    """The attention sub-layers that are known, with the names of their attention modules."""
    for name, module in network.named_modules():
        inner, output = getattr(module, "self", None), getattr(module, "output", None)
        if _has_linears(inner, ("query", "key", "value")) and _has_linears(output, ("dense",)):
            yield f"{name}.self", Attention(inner, ("query", "key", "value"), output, "dense", module, "self")
        inner = getattr(module, "attention", None)
        if _has_linears(inner, ("q_lin", "k_lin", "v_lin", "out_lin")):
            names = ("q_lin", "k_lin", "v_lin")
            yield f"{name}.attention", Attention(inner, names, inner, "out_lin", module, "attention")


def feed_forwards(network: nn.Module) -> Iterator[tuple[str, FeedForward]]:
    """The feed-forward sub-layers that are known, with the names of their input layers."""
    for name, module in network.named_modules():
        first, second = getattr(module, "intermediate", None), getattr(module, "output", None)
        act = "intermediate_act_fn"
        if _has_linears(first, ("dense",)) and _has_linears(second, ("dense",)) and hasattr(first, act):
            yield f"{name}.intermediate.dense", FeedForward((first, "dense"), (first, act), (second, "dense"))
        if _has_linears(module, ("lin1", "lin2")) and hasattr(module, "activation"):
            yield f"{name}.lin1", FeedForward((module, "lin1"), (module, "activation"), (module, "lin2"))


def _has_linears(module: nn.Module | None, names: tuple[str, ...]) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in names)


def has_encoder_layers(network: nn.Module) -> bool:
    """Whether there is a sub-layer that this file knows."""
    return any(True for _ in attentions(network)) or any(True for _ in feed_forwards(network))


@torch.no_grad()
def cut_encoders_(network: nn.Module) -> list[Kept]:
    """Removes heads and units that are exactly zero, in place; returns those that are zero in part and had to stay.

    network: in float64.
    """
    kept = [_cut_heads_(name, attention) for name, attention in list(attentions(network))]
    for _, feed_forward in list(feed_forwards(network)):
        _cut_units_(feed_forward)
    return [one for one in kept if one is not None]


def number_of_heads(attention: nn.Module) -> int:
    """The heads of an attention module."""
    return next(getattr(attention, key) for key in HEADS if hasattr(attention, key))


def set_heads_(attention: nn.Module, heads: int) -> None:
    """Writes down the number of heads wherever the module keeps it."""
    size = attention.attention_head_size
    for key in HEADS:
        if hasattr(attention, key):
            setattr(attention, key, heads)
    if hasattr(attention, "all_head_size"):
        attention.all_head_size = heads * size


def _cut_heads_(name: str, found: Attention) -> Kept | None:
    heads, size = number_of_heads(found.attention), found.attention.attention_head_size
    unread = (found.projection.weight == 0).all(0).reshape(heads, size).all(1)
    value = getattr(found.attention, found.names[2])
    no_weight = (value.weight == 0).all(1).reshape(heads, size).all(1)
    no_bias = torch.ones(heads, dtype=torch.bool)
    if value.bias is not None:
        no_bias = (value.bias == 0).reshape(heads, size).all(1)
    dead = unread | (no_weight & no_bias)
    if dead.all():
        remove_attention_(found)
    elif dead.any():
        for key in found.names:
            cut_(getattr(found.attention, key), outputs=dead.repeat_interleave(size))
        cut_(found.projection, inputs=dead.repeat_interleave(size))
        set_heads_(found.attention, heads - int(dead.sum()))
    biased = int((~dead & no_weight).sum())
    return Kept(f"{name}.{found.names[2]}", biased, "the value bias of a head is not zero") if biased else None


def _cut_units_(found: FeedForward) -> None:
    first, second = getattr(*found.first), getattr(*found.second)
    unread = (second.weight == 0).all(0)
    constant = (first.weight == 0).all(1)
    activation = getattr(*found.activation)
    carried = activation(first.bias if first.bias is not None else first.weight.new_zeros(first.out_features))
    dead = unread | (constant & carried.isfinite())
    folded = second.weight @ torch.where(dead & ~unread, carried, 0.0)
    if folded.any():
        second.bias = nn.Parameter(folded + (0 if second.bias is None else second.bias))
    if dead.all():
        remove_feed_forward_(found)
    else:
        cut_(first, outputs=dead)
        cut_(second, inputs=dead)


def remove_attention_(found: Attention) -> None:
    """Leaves of an attention sub-layer what it returns without heads."""
    left = BiasOnly(_bias(found.projection))
    if found.outer is found.attention:
        setattr(found.owner, found.key, NoHeads(left))
    else:
        setattr(found.owner, found.key, NoHeads())
        setattr(found.outer, found.output, left)


def remove_feed_forward_(found: FeedForward) -> None:
    """Leaves of a feed-forward sub-layer what it returns without units."""
    setattr(*found.second, BiasOnly(_bias(getattr(*found.second))))
    setattr(*found.first, NoUnits())
    setattr(*found.activation, nn.Identity())


def _bias(layer: nn.Linear) -> Tensor:
    bias = layer.bias.detach() if layer.bias is not None else layer.weight.new_zeros(layer.out_features)
    return bias.clone()
