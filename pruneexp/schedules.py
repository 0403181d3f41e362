"""Schedules: how a sparsity grows from zero to its final value in the course of training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Timeline:
    """The length of a training."""

    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> float:
        """The number of epochs."""
        return self.total_steps / self.steps_per_epoch


class Schedule(ABC):
    """A function from the step to a sparsity."""

    @abstractmethod
    def __call__(self, final: float, step: int, timeline: Timeline) -> float:
        """The sparsity at a step (0 for the first), between 0 and `final`, not decreasing in the step."""

    def check(self, final: float, timeline: Timeline) -> None:
        """Raises ValueError if the final sparsity is not reached by the last step."""
        reached = self(final, timeline.total_steps - 1, timeline)
        if reached < final:
            raise ValueError(
                f"schedule={self}: reaches a sparsity of only {reached:.4g} of {final:.4g} by the last of "
                f"{timeline.total_steps} steps ({timeline.epochs:.4g} epochs); raise epochs or end it earlier"
            )


def _check_fractions(begin: float, end: float) -> None:
    if not 0 <= begin <= end <= 1:
        raise ValueError(
            f"schedule.begin={begin}, schedule.end={end}: want 0 <= begin <= end <= 1, as fractions of training"
        )


@dataclass(frozen=True)
class Constant(Schedule):
    """The final sparsity at once. begin: when, a fraction of training."""

    begin: float

    def __post_init__(self) -> None:
        _check_fractions(self.begin, 1.0)

    def __call__(self, final: float, step: int, timeline: Timeline) -> float:
        """0 before `begin`, then `final`."""
        return final if step >= min(round(self.begin * timeline.total_steps), timeline.total_steps - 1) else 0.0


@dataclass(frozen=True)
class Polynomial(Schedule):
    """s(x) = final (1 - (1 - x)^power), x running from 0 to 1 between `begin` and `end` (fractions of training).

    power 3 is the cubic schedule of Zhu & Gupta 2017 (arXiv 1710.01878, equation 1, with initial sparsity 0); power 1
    is linear.
    """

    begin: float
    end: float
    power: float

    def __post_init__(self) -> None:
        _check_fractions(self.begin, self.end)
        if self.power <= 0:
            raise ValueError(f"schedule.power={self.power}: must be positive")

    def __call__(self, final: float, step: int, timeline: Timeline) -> float:
        """The polynomial between begin and end, 0 before, `final` after."""
        last = timeline.total_steps - 1
        first, end = round(self.begin * last), round(self.end * last)
        if step < first:
            return 0.0
        if step >= end:
            return final
        return final * (1 - (1 - (step - first) / (end - first)) ** self.power)


@dataclass(frozen=True)
class PDPRamp(Schedule):
    """PDP's ramp (Cho et al. 2023, arXiv 2305.11203, algorithm 1 as re-implemented): constant within an epoch.

    After `warmup_epochs` (s) dense epochs, r(e) = min(1, epsilon (e - s + first)) x final with mode "fraction", or
    min(final, epsilon (e - s + first)) with mode "absolute". Which of the two the paper means, and whether `first` is 0
    or 1, is not known for certain; "fraction" and 1 are what two independent re-implementations do.
    """

    warmup_epochs: int
    epsilon: float
    mode: str
    first: int

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0:
            raise ValueError(f"schedule.warmup_epochs={self.warmup_epochs}: must not be negative")
        if self.epsilon <= 0:
            raise ValueError(f"schedule.epsilon={self.epsilon}: must be positive, a sparsity step per epoch")
        if self.mode not in ("fraction", "absolute"):
            raise ValueError(f"schedule.mode={self.mode}: want fraction or absolute")
        if self.first not in (0, 1):
            raise ValueError(f"schedule.first={self.first}: want 0 or 1")

    def __call__(self, final: float, step: int, timeline: Timeline) -> float:
        """The sparsity of the epoch that the step is in."""
        epoch = step // timeline.steps_per_epoch
        if epoch < self.warmup_epochs:
            return 0.0
        grown = self.epsilon * (epoch - self.warmup_epochs + self.first)
        return min(1.0, grown) * final if self.mode == "fraction" else min(grown, final)
