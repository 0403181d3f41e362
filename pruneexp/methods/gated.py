"""What methods share that learn gates on whole units (`pruneexp.gated_units`), close them, and then fine-tune."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pruneexp.budgets import Global
from pruneexp.gate_options import GateOptions, check_whole_units, closing_step
from pruneexp.gated_units import GatedUnits
from pruneexp.hard_concrete import HardConcrete
from pruneexp.learned_gates import LearnedGates
from pruneexp.masks import Masks
from pruneexp.methods.base import Pruner, Setting
from pruneexp.nesting import Nesting
from pruneexp.patterns import Pattern
from pruneexp.schedules import Schedule
from pruneexp.surgery.compact import compact_, expand_


class Gated(Pruner):
    """A method with gates on whole units, learned with the weights under a size constraint."""

    soft = True
    takes_overlap = True

    def __init__(
        self,
        *,
        sparsity: float,
        pattern: Pattern,
        schedule: Schedule,
        exclude: list[str],
        gate: HardConcrete,
        start: dict,
        noise: float,
        limit: float,
        gate_rate: float,
        multiplier_rate: float,
        harden_at: float,
    ) -> None:
        """Keeps the arguments.

        schedule: of the target sparsity; before it rises above 0, there are no gates. gate, start, noise, limit,
        gate_rate, multiplier_rate: as of `GateOptions`. harden_at: fraction of training after which units are closed
        for good and the rest is fine-tuning; 1 for the end.

        Raises:
            ValueError: a value is out of its range, or the units of the pattern are parts of single tensors.
        """
        super().__init__(sparsity=sparsity, pattern=pattern, budget=Global(), schedule=schedule, exclude=exclude)
        check_whole_units(pattern)
        self.options = GateOptions(gate, start, noise, limit, gate_rate, multiplier_rate)
        self.harden_at = harden_at
        self.compacted: list[nn.Linear] = []

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches gates to the network and makes what is learned."""
        super().setup(model, setting)
        self.network = model
        self.harden_step = closing_step(self.harden_at, self.schedule, self.target, self.timeline)
        self.units = GatedUnits(
            model, self.nesting, self.learned_gates(setting), options=self.options, serves=lambda: setting.task.current
        )
        self.attach(model, self.units.gates.parametrizations)
        self.units.gates.watch(model)

    def check_target(self) -> None:
        """Raises ValueError if so many weights cannot be pruned: a group that is not in another keeps a unit."""
        self.nesting = Nesting(self.groups.values(), sum(weight.numel() for weight in self.weights.values()))
        self.nesting.check(self.target)

    def first_log_alpha(self) -> Tensor:
        """Where log alpha starts, shape (units,)."""
        return self.options.first_log_alpha(self.nesting, self.seed)

    def learned_gates(self, setting: Setting) -> LearnedGates:
        """What is learned: one row of gates, which all tasks share."""
        return LearnedGates(self.first_log_alpha(), self.options.gate, limit=self.options.limit)

    def param_groups(self) -> list[dict[str, Any]]:
        """Log alpha, which descends, and the multipliers, which ascend."""
        return self.units.param_groups()

    def penalty(self) -> Tensor | float:
        """The size constraint, and what rows pay for being different, while gates are learned."""
        return self.units.penalty()

    def before_step(self, step: int) -> bool:
        """Prepares the samples of the step; closes units for good when it is time."""
        if step < self.harden_step:
            self.units.begin(step, target=self.schedule(self.target, step, self.timeline), seed=self.seed)
        elif not self.units.closed:
            self._close()
            return bool(self.masks)
        return False

    def _close(self) -> None:
        self.close_units()
        self.compacted = compact_(self.network, self.masks)

    def close_units(self) -> None:
        """Closes units for good and sets the masks."""
        self.masks = self.units.close(self.weights | self.companions).get(self.units.first, {})

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with the target's units that would stay, scaled by their gates without noise."""
        with self.units.hardened():
            yield

    def sparsity(self) -> float:
        """The fraction of the prunable weights that the target's mask would prune now, or has pruned."""
        return self.units.sparsity(self.units.first) if self.units.learning else super().sparsity()

    def metrics(self) -> dict[str, float]:
        """Of each row of gates: expected sparsity, that of CoFi's rule, both multipliers, the mean P(z > 0) by kind."""
        return self.units.metrics()

    def finalize(self) -> Masks:
        """The target's masks; the gates that are to stay are in the plain weights."""
        if not self.units.closed:
            self._close()
        expand_(self.compacted)
        self.units.gates.close()
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Masks, and what the gates have to remember."""
        return {**super().state_dict(), "units": self.units.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.units.load_state_dict(state["units"])
        self.compacted = compact_(self.network, self.masks)
