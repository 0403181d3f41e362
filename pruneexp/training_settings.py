"""What the user sets of the training loop itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long and how to train.

    epochs: need not be whole. batch_size: global, over all processes. accumulate: micro-batches per step.
    evaluate_every: epochs between validations. ema_decay: None for no averaging. checkpoint_minutes: the longest time
    without a checkpoint. alternate: each step serves one task, where there are several.
    """

    epochs: float
    batch_size: int
    accumulate: int
    evaluate_every: float
    evaluate_first: bool
    ema_decay: float | None
    checkpoint_minutes: float
    channels_last: bool
    compile: bool
    alternate: bool
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(f"training.accumulate={self.accumulate}: want 1 to batch_size={self.batch_size}")
        if self.evaluate_every <= 0:
            raise ValueError(f"training.evaluate_every={self.evaluate_every}: must be positive, in epochs")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay={self.ema_decay}: must be in [0, 1), or null for no averaging")
        if self.checkpoint_minutes < 0:
            raise ValueError(f"training.checkpoint_minutes={self.checkpoint_minutes}: must not be negative")
