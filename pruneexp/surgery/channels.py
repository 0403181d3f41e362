"""Removing channels that no layer needs, where that leaves the function exactly as it is.

A set of coupled channels (`pruneexp.surgery.coupled`) can go if everything that reads it takes nothing from it: the
columns of the reader's weight are zero, or the channel is the constant zero there, or another constant, which the
reader's bias can take over. A convolution that pads with zeros cannot take over a constant other than zero: at the
border it sees fewer of them. Such channels are kept, and `Kept` says so.

Freed channels free others (a filter that nobody reads needs no inputs), so sets are looked for until no more are found.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut
from pruneexp.models.errors import first_line
from pruneexp.surgery.constants import Read, constant_inputs
from pruneexp.surgery.coupled import Coupling, coupling, is_depthwise
from pruneexp.surgery.cut import cut_
from pruneexp.surgery.report import Kept
from pruneexp.surgery.verify import SurgeryError, call


@torch.no_grad()
def cut_channels_(network: nn.Module, example: Any, *, multiple_of: int = 1) -> list[Kept]:
    """Removes what can be removed, in place, and returns what could not.

    network: in eval mode, in float64, its parameters requiring gradients. example: inputs as the network takes them.
    multiple_of: layers that lose channels keep a multiple of so many, zeros among them, for kernels that want that.

    Raises:
        SurgeryError: torch-pruning cannot follow the network.
    """
    try:
        with torch.enable_grad():
            coupled = coupling(network, example)
    except Exception as error:  # of the network's own code, or of the graph's
        raise SurgeryError(f"torch-pruning cannot follow {type(network).__name__}: {first_line(error)}") from error
    names = {module: name for name, module in network.named_modules()}
    _block_shared(coupled, names)
    dead = {layer: _dead_rows(layer) for layer, role in coupled.sides if role == "out" and _produces(layer)}
    gone: set[int] = set()
    while True:
        reads = constant_inputs(network, lambda network: call(network, example))
        obstacles = _obstacles(coupled, reads, names) | coupled.blocked
        free = set(range(coupled.sets)) - obstacles.keys() - gone
        if not free:
            break
        _empty_(coupled, free, reads)
        gone |= free
    gone, needed = _leave_enough(coupled, gone, names, multiple_of)
    for layer, sides in _removals(coupled, gone).items():
        cut_(layer, outputs=sides.get("out"), inputs=sides.get("in"))
    return _kept(coupled, dead, obstacles | needed, names)


def _produces(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))


def _dead_rows(layer: nn.Module) -> Tensor:
    """bool (outputs,): where the rows of the weight, and the bias, are zero."""
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) == 0
        dead = grouped.flatten(3).all(3).all(1).flatten()
    else:
        dead = (weight == 0).flatten(1).all(1)
    return dead if layer.bias is None else dead & (layer.bias.detach() == 0)


def _columns(layer: nn.Module) -> Tensor:
    """The weights that read each input channel, shape (inputs, weights of one input)."""
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):
        return weight.flatten(1)
    groups = getattr(layer, "groups", 1)
    rows = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return rows.transpose(1, 2).reshape(groups * weight.shape[1], -1)


def _block_shared(coupled: Coupling, names: dict[nn.Module, str]) -> None:
    """Blocks the channels of layers that share a weight: what one loses, the other would too."""
    owners = Counter(id(module.weight) for module in names if _produces(module))
    for (layer, _), sets in coupled.sides.items():
        if _produces(layer) and owners[id(layer.weight)] > 1:
            coupled.blocked |= dict.fromkeys(sets[sets >= 0].tolist(), "belongs to a weight that several layers share")


def _obstacles(coupled: Coupling, reads: dict[int, Read], names: dict[nn.Module, str]) -> dict[int, str]:
    """Set -> why it cannot go, for the sets from which a layer takes something that its bias cannot take over."""
    found: dict[int, str] = {}
    for (layer, role), sets in coupled.sides.items():
        if role == "out" or not _produces(layer):
            continue
        if id(layer.weight) not in reads:  # called by an operation that was not watched
            found |= dict.fromkeys(sets[sets >= 0].tolist(), f"carries a signal to {names[layer]}")
            continue
        read = reads[id(layer.weight)]
        taken = (_columns(layer) != 0).any(1) & (sets >= 0) & ~(read.known & (read.values == 0))
        constant = read.known & read.values.isfinite()
        border = f"carries a constant that {names[layer]} reads, which pads with zeros"
        found |= dict.fromkeys(sets[taken & constant].tolist(), border) if read.padded else {}
        found |= dict.fromkeys(sets[taken & ~constant].tolist(), f"carries a signal to {names[layer]}")
    return found


def _empty_(coupled: Coupling, sets: set[int], reads: dict[int, Read]) -> None:
    """Zeroes all weights of these sets. What they carry to a layer becomes part of its bias."""
    for (layer, role), numbers in coupled.sides.items():
        chosen = _chosen(numbers, sets)
        if role == "in" and _produces(layer):
            if bool(chosen.any()):
                _fold_(layer, chosen, reads[id(layer.weight)])
        elif role == "out" and getattr(layer, "transposed", False):
            weight = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
            weight.transpose(1, 2).flatten(0, 1)[chosen] = 0
        elif role == "out" and not isinstance(layer, ZeroPadShortcut):
            for parameter in layer.parameters(recurse=False):
                parameter[chosen] = 0


def _fold_(layer: nn.Module, chosen: Tensor, read: Read) -> None:
    """Adds what the chosen inputs, all constants, contribute to the bias, and zeroes their weights."""
    values = torch.where(chosen & read.known, read.values, 0.0)
    if bool(((_columns(layer) != 0).any(1) & (values != 0)).any()):
        if layer.weight.dim() == 2:
            added = layer.weight @ values
        else:
            rows = layer.weight.flatten(2).sum(2).reshape(layer.groups, -1, layer.weight.shape[1])
            added = (rows @ values.reshape(layer.groups, -1, 1)).flatten()
        layer.bias = nn.Parameter(added + (0 if layer.bias is None else layer.bias))
    groups = getattr(layer, "groups", 1)
    if getattr(layer, "transposed", False):
        layer.weight[chosen] = 0
    else:
        rows = layer.weight.shape[0] // groups
        taken = chosen.reshape(groups, 1, -1).expand(groups, rows, -1).reshape(layer.weight.shape[:2])
        layer.weight[taken] = 0


def _chosen(numbers: Tensor, sets: set[int]) -> Tensor:
    """bool (channels,): which channels are of one of the sets."""
    return torch.isin(numbers, torch.tensor(sorted(sets), dtype=torch.int64))


def _removals(coupled: Coupling, gone: set[int]) -> dict[nn.Module, dict[str, Tensor]]:
    """Layer -> "out" or "in" -> bool (channels,), True = remove."""
    removals: dict[nn.Module, dict[str, Tensor]] = {}
    for (layer, role), numbers in coupled.sides.items():
        removals.setdefault(layer, {})[role] = _chosen(numbers, gone)
    return removals


def _leave_enough(
    coupled: Coupling, gone: set[int], names: dict[nn.Module, str], multiple_of: int
) -> tuple[set[int], dict[int, str]]:
    """The sets that may go such that every layer keeps what it needs, and why the others stay.

    Every side of every layer keeps a channel, the groups of a grouped convolution keep equally many, and outputs a
    multiple of `multiple_of`. Sets that stay for this have only zeros for weights.
    """
    gone, needed = set(gone), {}
    changed = True
    while changed:
        changed = False
        for (layer, role), numbers in coupled.sides.items():
            groups = 1 if is_depthwise(layer) else getattr(layer, "groups", 1)
            parts = [[n for n in part.tolist() if n in gone] for part in numbers.reshape(groups, -1)]
            limit, why = min([numbers.numel() // groups - 1, *(len(part) for part in parts)]), "needs a channel"
            if limit < max(len(part) for part in parts) and groups > 1:
                why = "needs groups of one size"
            if role == "out" and _produces(layer) and multiple_of > 1:
                rounded = _rounded(numbers.numel() // groups, limit, multiple_of)
                limit, why = (rounded, f"keeps a multiple of {multiple_of}") if rounded < limit else (limit, why)
            for part in parts:
                if len(part) > limit:
                    needed |= dict.fromkeys(part[limit:], f"{names[layer]} {why}")
                    gone -= set(part[limit:])
                    changed = True
    return gone, needed


def _rounded(width: int, removed: int, multiple_of: int) -> int:
    """The largest number of channels to remove, at most `removed`, that leaves a multiple; 0 if none does."""
    return max((count for count in range(removed + 1) if (width - count) % multiple_of == 0), default=0)


def _kept(
    coupled: Coupling, dead: dict[nn.Module, Tensor], reasons: dict[int, str], names: dict[nn.Module, str]
) -> list[Kept]:
    """Which channels have nothing but zeros in their row of the weight, and stay."""
    alive: dict[int, str] = {}
    for layer, rows in dead.items():
        alive |= dict.fromkeys(coupled.sides[layer, "out"][~rows].tolist(), names[layer])
    counted: Counter[tuple[str, str]] = Counter()
    for layer, rows in dead.items():
        for number in coupled.sides[layer, "out"][rows].tolist():
            if number in reasons:
                partner = f"is coupled with a channel of {alive.get(number)}, which is alive"
                counted[names[layer], partner if number in alive else reasons[number]] += 1
    return [Kept(layer, units, why) for (layer, why), units in counted.items()]
