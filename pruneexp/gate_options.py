"""What users set of gates that are learned: where they start, how fast they move, on which units, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruneexp.hard_concrete import HardConcrete
from pruneexp.nesting import Nesting
from pruneexp.patterns import Pattern, TensorPattern
from pruneexp.schedules import Schedule, Timeline


@dataclass(frozen=True)
class GateOptions:
    """What gates start from and how they are learned.

    gate: the distribution. start: log alpha at first, by kind of unit. noise: standard deviation around it. limit: the
    largest alpha, 1 / limit the smallest. gate_rate, multiplier_rate: constant learning rates of Adam for log alpha and
    for both lambdas.

    Raises:
        ValueError: a value is out of its range.
    """

    gate: HardConcrete
    start: Mapping[str, float]
    noise: float
    limit: float
    gate_rate: float
    multiplier_rate: float

    def __post_init__(self) -> None:
        for key in ("gate_rate", "multiplier_rate"):
            if getattr(self, key) <= 0:
                raise ValueError(f"method.{key}={getattr(self, key)}: must be positive, a learning rate")
        if self.noise < 0:
            raise ValueError(f"method.noise={self.noise}: must not be negative, a standard deviation")
        if self.limit <= 1:
            raise ValueError(f"method.limit={self.limit}: must be above 1, the largest alpha")
        for kind, value in self.start.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"method.start.{kind}={value}: want a number, log alpha of these units at first")

    def first_log_alpha(self, nesting: Nesting, seed: int) -> Tensor:
        """Log alpha at the start of a run, shape (units,).

        Raises:
            ValueError: there is no number for a kind of unit.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for group in nesting.groups.values():
            if group.kind not in self.start:
                raise ValueError(f"method.start={dict(self.start)}: has no number for {group.kind}; add one")
            rows.append(self.start[group.kind] + self.noise * torch.randn(group.unit_count, generator=generator))
        return torch.cat(rows).to(nesting.own.device)


def check_whole_units(pattern: Pattern) -> None:
    """Raises ValueError if the units of a pattern are parts of single tensors."""
    if isinstance(pattern, TensorPattern):
        raise ValueError(
            f"pattern={type(pattern).__name__}: this method has gates on whole units; take pattern=structured, "
            "channel or transformer"
        )


def closing_step(harden_at: float, schedule: Schedule, target: float, timeline: Timeline) -> int:
    """The step before which units are closed for good. harden_at: the fraction of training after which that happens.

    Raises:
        ValueError: it is no such fraction, or the schedule has not reached the target sparsity by then.
    """
    if not 0 < harden_at <= 1:
        raise ValueError(f"method.harden_at={harden_at}: must be in (0, 1], a fraction of training; 1 for the end")
    step = round(harden_at * timeline.total_steps)
    reached = schedule(target, max(0, step - 1), timeline)
    if reached < target:
        raise ValueError(
            f"method.harden_at={harden_at}: the schedule reaches a sparsity of only {reached:.4g} of {target:.4g} "
            "until then; raise it, or end the schedule earlier"
        )
    return step
