"""What surgery could not remove."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """Units whose weights are all zero and which are kept nevertheless. layer: its name. units: how many. why."""

    layer: str
    units: int
    why: str
