"""The hidden dimensions of a transformer encoder as units that can go, one group for the whole network.

CoFi's z_hidden (Xia, Zhong, Chen 2022, arXiv 2204.00408). CoFi lets LayerNorm compute over the open dimensions. Here
it stays torch's, over all of them with zeros among them, so that a masked network is a plain one.
"""

from collections.abc import Container

import torch
from torch import nn

from pruneexp.groups import Norm, Slice, SliceGroup
from pruneexp.models.hidden_stream import hidden_stream

KIND = "hidden"


def hidden_group(network: nn.Module, norm: Norm, weights: Container[str] | None = None) -> SliceGroup:
    """The group of all hidden dimensions of a network's encoder.

    weights: names of the weights that may be pruned, None for all. A dimension is a row of every layer that writes to
    the stream and a column of every one that reads it; what else it needs, in embeddings, normalisations and behind the
    last layer, goes with it and is not counted. It is scaled where it is written and behind every normalisation.

    Raises:
        ValueError: the encoder's stream is of another kind, or a layer of it may not be pruned.
    """
    stream = hidden_stream(network)
    if stream is None:
        raise ValueError(
            f"pattern.units: the hidden dimensions of {type(network).__name__} are not those of an encoder built like "
            "BERT, RoBERTa or DistilBERT; leave hidden out"
        )
    columns = [path for path in stream.readers if path not in stream.behind]
    names = [f"{path}.weight" for path in (*columns, *stream.writers)]
    if fixed := [name for name in names if weights is not None and name not in weights]:
        raise ValueError(
            f"exclude: {fixed[0]} reads or writes hidden dimensions; exclude less, or leave hidden out of pattern.units"
        )
    parameters = dict(network.named_parameters())
    unit = torch.arange(stream.width)
    read = [Slice(f"{path}.weight", 1, unit) for path in columns]
    written = _rows(stream.writers, unit, parameters)
    normalised = _rows(stream.norms, unit, parameters)
    embedded = [Slice(f"{path}.weight", 1, unit) for path in stream.embeddings]
    return SliceGroup(
        KIND,
        tensors=parameters,
        slices=[*read, *written],
        scored=[part for part in (*read, *written) if part.parameter.endswith(".weight")],
        gates=[*embedded, *written, *normalised],
        companions=[*embedded, *normalised],
        norm=norm,
        kind=KIND,
        across=True,
    )


def _rows(modules: tuple[str, ...], unit: torch.Tensor, parameters: dict[str, nn.Parameter]) -> list[Slice]:
    names = (f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias"))
    return [Slice(name, 0, unit) for name in names if name in parameters]
