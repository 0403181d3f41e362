"""Gates: numbers in [0, 1] that scale what units pass on, while training.

A gate per unit multiplies the parameters at the unit's gate slices (`SliceGroup.gates`) through parametrizations. The
values are computed once per forward pass of the network, in a hook before it, so that gradient flows back to whatever
they were computed from, and so that a group's gates are computed once although many layers read them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pruneexp.groups import Slice, SliceGroup

Compute = Callable[[], dict[str, Tensor]]
"""The gates of this moment: name of the group -> values, shape (units,); a group that is left out is open."""


class Gate(nn.Module):
    """The parametrization of one parameter: its product with the gates of the units that it has slices of."""

    def __init__(self, gates: "Gates") -> None:
        """gates: of the network."""
        super().__init__()
        self.values, self.closed = gates.values, gates.closed
        self.soft: list[tuple[str, Slice]] = []  # group, and where its units lie
        self.hard: list[tuple[str, Slice]] = []

    def forward(self, weight: Tensor) -> Tensor:
        """The effective parameter, of the shape of `weight`."""
        for slices, values in ((self.soft, self.values), (self.hard, self.closed)):
            for group, part in slices:
                if group in values:
                    weight = weight * part.expand(values[group], weight.dim())
        return weight


class Gates:
    """The gates of a network's groups.

    values: group -> gates in [0, 1], shape (units,), as of the last forward pass. closed: group -> 1 for units that
    are on and 0 for those that are off, in place of soft gates while it has an entry. frozen: group -> soft gates that
    stand in for the computed ones while it has an entry, also beside closed units.
    """

    def __init__(self, groups: Iterable[SliceGroup], compute: Compute) -> None:
        """compute: gives the soft gates, called before each forward pass."""
        self.compute = compute
        self.values: dict[str, Tensor] = {}
        self.closed: dict[str, Tensor] = {}
        self.frozen: dict[str, Tensor] = {}
        self.handle: RemovableHandle | None = None
        self.parametrizations: dict[str, Gate] = defaultdict(lambda: Gate(self))
        for group in groups:
            for part in group.gates:
                self.parametrizations[part.parameter].soft.append((group.name, part))
            for part in group.switches:
                self.parametrizations[part.parameter].hard.append((group.name, part))

    def watch(self, network: nn.Module) -> None:
        """Computes the gates before every forward pass of the network from now on."""
        self.handle = network.register_forward_pre_hook(lambda *_: self.refresh())

    def close(self) -> None:
        """Stops watching; the gates are open."""
        if self.handle is not None:
            self.handle.remove()
        self.values.clear()

    def refresh(self) -> None:
        """Computes the gates, as before a forward pass."""
        self.values.clear()
        if self.frozen:
            self.values.update(self.frozen)
        elif not self.closed:
            self.values.update(self.compute())

    @torch.no_grad()
    def fold_(self, parameters: Mapping[str, Tensor]) -> None:
        """Multiplies stored parameters, by dense name, with the gates of this moment, in place."""
        self.refresh()
        for name, gate in self.parametrizations.items():
            parameters[name].copy_(gate(parameters[name]))
