"""Patterns whose units span several tensors: channels of convolutional networks, parts of transformer encoders.

Whole units that are pruned can be removed from the network, which makes it smaller and faster.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.groups import Group, Norm, Slice, SliceGroup
from pruneexp.models.encoder_layers import encoder_layers, unit_groups
from pruneexp.models.errors import first_line
from pruneexp.models.hidden_units import KIND, hidden_group
from pruneexp.models.parts import parts
from pruneexp.patterns import Pattern
from pruneexp.surgery.channel_groups import channel_groups

UNITS = ("heads", "ffn", "attention_layers", "ffn_layers", "hidden")


class Channel(Pattern):
    """Output channels, those that a residual add ties together as one; each group of tied layers competes in itself."""

    def __init__(self, *, norm: str, gate: str) -> None:
        """Keeps the arguments.

        norm: what ranks the channels of a group, a name of `pruneexp.groups.Norm`, over all tied filters. gate: where a
        soft mask scales a channel: "norm", behind its batch normalisation where there is one, or "filter".

        Raises:
            ValueError: there is no such norm or gate.
        """
        if gate not in ("norm", "filter"):
            raise ValueError(f"pattern.gate={gate}: want norm or filter")
        self.norm = Norm(norm)
        self.gate = gate

    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """The groups of channels whose filters may all be pruned.

        Raises:
            ValueError: the network reads texts, or cannot be traced.
        """
        inputs = example()
        if not isinstance(inputs, Tensor):
            raise ValueError("pattern=channel: is for networks of images; take pattern=transformer for an encoder")
        try:
            return channel_groups(model, inputs[:1], weights=weights, norm=self.norm, gate_norms=self.gate == "norm")
        except Exception as error:  # of the network's own code under torch-pruning's tracing, or of torch-pruning
            raise ValueError(
                f"pattern=channel: the channels of {type(model).__name__} cannot be traced "
                f"({type(error).__name__}: {first_line(error)}); take pattern=nm or pattern=unstructured"
            ) from error


class InputChannel(Pattern):
    """Input channels of every layer by itself, whatever the other layers do that read the same tensor (UPSCALE).

    Wan, Hao et al. 2023, arXiv:2307.08771: without the constraint that layers agree. `prune-export --channels` makes
    smaller networks of such runs.
    """

    def __init__(self, *, norm: str) -> None:
        """norm: what ranks the channels of a layer, a name of `pruneexp.groups.Norm`.

        Raises:
            ValueError: there is no such norm.
        """
        self.norm = Norm(norm)

    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """One group for each layer with several input channels, but that which reads the images.

        Raises:
            ValueError: the network reads texts.
        """
        if not isinstance(example(), Tensor):
            raise ValueError(
                "pattern=input_channel: is for networks of images; take pattern=transformer for an encoder"
            )
        first = parts(model)["first"]
        return [
            self._group(name, weight)
            for name, weight in weights.items()
            if name not in first and weight.dim() > 1 and weight.shape[1] > 1
        ]

    def _group(self, name: str, weight: Tensor) -> SliceGroup:
        columns = [Slice(name, 1, torch.arange(weight.shape[1]))]
        return SliceGroup(
            name,
            tensors={name: weight},
            slices=columns,
            scored=columns,
            gates=columns,
            norm=self.norm,
            kind="input channels",
        )


class Transformer(Pattern):
    """Units of a transformer encoder: heads and FFN units, whole sub-layers, or hidden dimensions."""

    def __init__(self, *, units: list[str], norm: str) -> None:
        """Keeps the arguments.

        units: any of "heads", "ffn" (units of the feed-forward layers), "attention_layers", "ffn_layers", "hidden"
        (dimensions of the residual stream). norm: what ranks them, a name of `pruneexp.groups.Norm`, over all their
        weights.

        Raises:
            ValueError: no or an unknown kind of unit, or an unknown norm.
        """
        if not units or set(units) - set(UNITS) or len(set(units)) < len(units):
            raise ValueError(f"pattern.units={units}: want a list of {', '.join(UNITS)}, each at most once")
        nested = [pair for pair in (("heads", "attention_layers"), ("ffn", "ffn_layers")) if set(pair) <= set(units)]
        if nested:
            self.overlap = f"pattern.units={units}: {nested[0][0]} are part of {nested[0][1]}"
        elif KIND in units and len(units) > 1:
            self.overlap = f"pattern.units={units}: hidden dimensions run through all others"
        self.units = units
        self.norm = Norm(norm)

    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """The groups of units whose weights may all be pruned.

        Raises:
            ValueError: there is no encoder of a known kind, or its hidden dimensions cannot go.
        """
        if not encoder_layers(model):
            raise ValueError(
                f"pattern.units={self.units}: {type(model).__name__} has no encoder layers named as in BERT, RoBERTa "
                "or DistilBERT; take another model or pattern=unstructured"
            )
        kinds = [kind for kind in self.units if kind != KIND]
        found: list[Group] = [group for kind in kinds for group in unit_groups(model, kind, self.norm, weights)]
        return [*found, hidden_group(model, self.norm, weights)] if KIND in self.units else found


class Structured(Pattern):
    """The whole units of any network: channels where it reads images, those of its encoder where it reads texts."""

    def __init__(self, *, units: list[str], norm: str, gate: str) -> None:
        """units: as of `Transformer`. norm: of both. gate: as of `Channel`.

        Raises:
            ValueError: as of both.
        """
        self.channel = Channel(norm=norm, gate=gate)
        self.transformer = Transformer(units=units, norm=norm)
        self.overlap = self.transformer.overlap

    def groups(self, weights: Mapping[str, Tensor], model: nn.Module, example: Callable[[], Any]) -> list[Group]:
        """The groups of the pattern that fits the network.

        Raises:
            ValueError: as of that pattern.
        """
        pattern = self.channel if isinstance(example(), Tensor) else self.transformer
        return pattern.groups(weights, model, example)
