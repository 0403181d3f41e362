"""Where training stands: what a checkpoint holds beside the state of model, method and optimizer."""

import time
from typing import Any

import torch
from torch import Tensor


class Progress:
    """Steps, time, the best validation so far, and the loss since the last evaluation.

    step: how many are done. elapsed: seconds of training in earlier processes. resumed_from: the step at which this
    process went on, None if it began. best: {value, step, sparsity} of the best validation, None before the first.
    """

    def __init__(self, device: torch.device) -> None:
        """device: where losses are."""
        self.step = 0
        self.elapsed = 0.0
        self.resumed_from: int | None = None
        self.best: dict[str, float] | None = None
        # A sum on the device: reading the loss in every step would stall a GPU.
        self.loss_sum = torch.zeros((), device=device)
        self.loss_steps = 0
        self.begin()

    def begin(self) -> None:
        """Starts the clocks."""
        self.began = self.saved = self.evaluated = time.monotonic()

    def wall_seconds(self) -> float:
        """Seconds of training so far, earlier processes of the same run included."""
        return self.elapsed + time.monotonic() - self.began

    def stepped(self, loss: Tensor) -> None:
        """Counts a step. loss: of its batch, a scalar."""
        self.loss_sum += loss
        self.loss_steps += 1
        self.step += 1

    def validated(self, value: float, *, sparsity: float) -> None:
        """Remembers a validation, if it is the best, and begins a new sum of losses."""
        if self.best is None or value > self.best["value"]:
            self.best = {"value": value, "step": self.step, "sparsity": sparsity}
        self.loss_sum, self.loss_steps = torch.zeros_like(self.loss_sum), 0

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {
            "step": self.step,
            "best": self.best,
            "elapsed": self.wall_seconds(),
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.step = self.resumed_from = state["step"]
        self.elapsed, self.best = state["elapsed"], state["best"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
