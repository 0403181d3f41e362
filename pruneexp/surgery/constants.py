"""Which channels of a network are constants, found by watching one forward pass.

A channel is a constant if it has the same value in every place of the map, whatever the input: zero behind a filter of
zeros, beta behind a normalisation whose gamma is zero, relu(beta) after that. The value is read from the pass itself;
that it does not depend on the input is derived, operation by operation, from weights that are exactly zero
(`pruneexp.surgery.constant_rules`). An operation without a rule makes its output unknown: what is found is true, and
may be incomplete.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from pruneexp.surgery.constant_rules import LAYERS, PRODUCTS, RULES, Call, Channels, is_zero, values


@dataclass(frozen=True)
class Read:
    """What one layer reads. known: bool (inputs,), True where the channel is a constant. values: float (inputs,), the
    constants, meaningless elsewhere. padded: whether the layer sets zeros around the map, where a constant ends.
    """

    known: Tensor
    values: Tensor
    padded: bool


@torch.enable_grad()  # without gradients torch runs transformer layers in one fused call, which cannot be watched
def constant_inputs(network: nn.Module, run: Callable[[nn.Module], Any]) -> dict[int, Read]:
    """id of a weight -> what the convolution or linear layer with this weight reads, over all its calls.

    run: passes an example through the network, which must be in eval mode.
    """
    with _Watch() as watch:
        run(network)
    return {weight: _joined(reads) for weight, reads in watch.reads.items()}


def _joined(reads: list[Read]) -> Read:
    """What is constant in every call of a layer, with the same value."""
    first = reads[0]
    known = first.known
    for other in reads[1:]:
        known = known & other.known & (first.values == other.values)
    return Read(known, first.values, any(read.padded for read in reads))


class _Watch(TorchFunctionMode):
    """While active, keeps what is known of each tensor, and what layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = WeakIdKeyDictionary()
        self.reads: dict[int, list[Read]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Calls the function and notes what is known of its result."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        # Before the call, since it may write into its first argument.
        zeros = [self._zeros(argument) for argument in args] if name in PRODUCTS else []
        if name in LAYERS:
            self._note_read(name, args, kwargs)
        output = func(*args, **kwargs)
        rule = RULES.get(name)
        if isinstance(output, Tensor):
            found = rule(Call(name, args, kwargs, output, self.channels.get, zeros)) if rule else None
            self._note(output, found)
        elif name in ("chunk", "split", "tensor_split"):
            for piece, found in _pieces(self.channels.get(args[0]), output):
                self._note(piece, found)
        elif name == "setitem":
            self._note(args[0], None)
        return output

    def _note(self, tensor: Tensor, found: Channels | None) -> None:
        if found is not None and bool(found.known.any()):
            self.channels[tensor] = found
        else:
            self.channels.pop(tensor, None)

    def _zeros(self, argument: Any) -> Tensor | None:
        found = self.channels.get(argument) if isinstance(argument, Tensor) else None
        return None if found is None else found.known & (values(argument, found.dim) == 0)

    def _note_read(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        dim = x.dim() - 1 if name == "linear" else x.dim() - (weight.dim() - 1)
        found = self.channels.get(x)
        known = found.known if found is not None and found.dim == dim else torch.zeros(x.shape[dim], dtype=torch.bool)
        padding = args[4] if len(args) > 4 else kwargs.get("padding", 0)
        padded = name != "linear" and not is_zero(padding)
        # A transposed convolution spreads its input: in every place of the map other weights meet it.
        spread = "transpose" in name
        self.reads.setdefault(id(weight), []).append(Read(known, values(x, dim), padded or spread))


def _pieces(before: Channels | None, pieces: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Channels | None]]:
    """Each part of a tensor that was cut, with what is known of it."""
    start = 0
    for piece in pieces:
        if before is None:
            yield piece, None
            continue
        cut = sum(part.shape[before.dim] for part in pieces) == before.known.numel()
        stop = start + piece.shape[before.dim]
        yield piece, Channels(before.dim, before.known[start:stop] if cut else before.known)
        start = stop
