"""Stages: parts of a training that follow each other, each a training of its own.

A stage has its tasks, runs the whole schedule of the learning rate (warm-up and decay) within its steps, and begins
with a fresh optimizer: moments of another loss, or of weights that were masked or replaced since, would mislead its
first steps. Only the weights, and the order of the examples, go on.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    begin: its first step. tasks: names of those whose losses train, None for all. learning_rate: at its peak, None for
    the optimizer's.
    """

    begin: int = 0
    tasks: tuple[str, ...] | None = None
    learning_rate: float | None = None


class Stages:
    """The stages of a training, in order."""

    def __init__(self, stages: Sequence[Stage], total_steps: int) -> None:
        """stages: the first begins at step 0; of those that begin at one step, the last counts."""
        self.stages = tuple(stages)
        self.begins = [stage.begin for stage in stages]
        self.ends = [*self.begins[1:], total_steps]

    def of(self, step: int) -> Stage:
        """The stage that a step is in."""
        return self.stages[bisect_right(self.begins, step) - 1]

    def starts(self, step: int) -> bool:
        """Whether a stage after the first begins at this step."""
        return step > 0 and step in self.begins

    def place(self, step: int) -> tuple[int, int]:
        """The steps of its stage before this step, and all steps of the stage."""
        index = bisect_right(self.begins, step) - 1
        return step - self.begins[index], self.ends[index] - self.begins[index]
