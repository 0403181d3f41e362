"""The magnitudes of weights, the score that most methods begin with."""

from collections.abc import Iterator, Mapping

from torch import Tensor


class Magnitudes(Mapping[str, Tensor]):
    """|w| by name, without gradient, computed when it is asked for: all at once would be a copy of the model."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """weights: by name; they may change in between."""
        self.weights = weights

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name].detach().abs()

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)
