"""Exact selection of the smallest values of a row, without sorting it.

`torch.sort`, `topk` and `kthvalue` order far more than a threshold needs. On a CPU, numpy's introselect touches each
value a few times; on a GPU one radix selection (`torch.kthvalue`) does.
"""

import numpy as np
import torch
from torch import Tensor


def boundary(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of the k smallest values of each row, and the smallest of the others.

    values: (rows, units), no NaN. k: 1 <= k < units. Both results: (rows, 1).
    """
    units = values.shape[1]
    if not 1 <= k < units:
        raise ValueError(f"cannot split {units} units after the {k} smallest: k must be in [1, {units - 1}]")
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        parted = np.partition(values.detach().numpy(), (k - 1, k), axis=1)
        edges = torch.from_numpy(np.ascontiguousarray(parted[:, k - 1 : k + 1]))
    else:
        lower = values.kthvalue(k, dim=1, keepdim=True).values
        # The next larger value is the smallest one above `lower`, unless `lower` itself occurs beyond position k.
        infinity = torch.full((), float("inf"), dtype=values.dtype, device=values.device)
        above = torch.where(values > lower, values, infinity).amin(dim=1, keepdim=True)
        tied = (values <= lower).sum(dim=1, keepdim=True) > k
        edges = torch.cat([lower, torch.where(tied, lower, above)], dim=1)
    return edges[:, :1], edges[:, 1:]


def keep_largest(values: Tensor, k: int) -> Tensor:
    """A bool tensor like `values` (rows, units) that is False at exactly k of the smallest values of each row.

    Among equal values at the boundary, those with the smaller index are kept: a threshold alone would keep all of
    them or none, and the count would be wrong.
    """
    units = values.shape[1]
    if k == 0:
        return torch.ones_like(values, dtype=torch.bool)
    if k == units:
        return torch.zeros_like(values, dtype=torch.bool)
    _, smallest_kept = boundary(values, k)
    keep = values > smallest_kept
    missing = (units - k) - keep.sum(dim=1, keepdim=True)
    tied = values == smallest_kept
    return keep | (tied & (tied.cumsum(dim=1) <= missing))


class WarmBoundary:
    """`boundary` for values that change little from call to call, such as the weights of a layer from step to step.

    Most values are far from the last threshold, and counting them is enough: only a narrow band around it, about a
    hundredth of the values, has to be ordered. The result is exact; a threshold that left the band costs one full
    selection. Nothing but the band's place is kept between calls.
    """

    def __init__(self) -> None:
        self.centre: float | None = None
        self.width = 0.05  # of the band on each side, relative to its centre

    def __call__(self, values: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `boundary(values, k)`."""
        on_cpu = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
        if not on_cpu or values.shape[0] > 1:
            return boundary(values, k)
        edges = self._from_band(values[0].detach().numpy(), k) if self.centre is not None else None
        if edges is None:
            lower, upper = boundary(values, k)
        else:
            lower, upper = torch.from_numpy(edges).view(2, 1, 1)
        self.centre = 0.5 * (lower.item() + upper.item())
        return lower, upper

    def _from_band(self, values: np.ndarray, k: int) -> np.ndarray | None:
        """The k-th and the next value, if both are in the band; otherwise None, and the band grows."""
        not_below = values >= self.centre * (1 - self.width)
        below = len(values) - np.count_nonzero(not_below)
        not_below &= values <= self.centre * (1 + self.width)
        band = values[not_below]
        rank = k - below  # of the k-th value within the band, from 1
        if not 1 <= rank < len(band):
            self.width = min(0.5, 2 * self.width)
            return None
        if len(band) > 0.02 * len(values):
            self.width *= 0.7
        return np.partition(band, (rank - 1, rank))[rank - 1 : rank + 1]
