"""Exact selection of the smallest values of a row, without sorting it.

`torch.sort`, `topk` and `kthvalue` order far more than a threshold needs, and on a CPU on one core. There numpy's
partition around a single position (AVX-512 or AVX2 quickselect since numpy 2) touches each value a few times; asked for
two positions at once it falls back to a search that is ten times slower. On a GPU `topk` is a radix selection spread
over many blocks (github.com/pytorch/pytorch/pull/74267); `kthvalue` has one for each row (issue 75599 there).
"""

import numpy as np
import torch
from torch import Tensor

from pruneexp.cpu_kernels import cpu_kernels

BLOCK = 1 << 18
"""Values worked on at a time on a CPU: what the steps of a formula pass on then stays in its cache (1 MiB)."""


def in_memory_order(values: Tensor) -> Tensor:
    """A view with the dimensions of `values` permuted so that it is contiguous wherever `values` lies densely.

    Weights with channels last come out as (out, height, width, in).
    """
    return values.permute(sorted(range(values.dim()), key=lambda dim: (-values.stride(dim), dim)))


def boundary(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of the k smallest values of each row, and the smallest of the others.

    values: (rows, units); NaN counts as larger than all numbers. k: 1 <= k < units. Both results: (rows, 1).

    Raises:
        ValueError: k is not in its range.
    """
    units = values.shape[1]
    if not 1 <= k < units:
        raise ValueError(f"cannot split {units} units after the {k} smallest: k must be in [1, {units - 1}]")
    if values.device.type != "cpu":
        return _boundary_of_topk(values, k)
    # numpy has no bfloat16; as float32 the values and their order are the same.
    wide = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    parted = torch.from_numpy(np.partition(wide.numpy(), k, axis=1))
    lower, upper = parted[:, :k].amax(dim=1, keepdim=True), parted[:, k : k + 1].clone()
    return lower.to(values.dtype), upper.to(values.dtype)


def _boundary_of_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`boundary` in two selections and no wait for the device: the shorter end of each row, and its last two values."""
    units = values.shape[1]
    if k < units - k:
        upper, lower = values.topk(k + 1, largest=False, sorted=False).values.topk(2).values.split(1, dim=1)
    else:
        end = values.topk(units - k + 1, sorted=False).values
        lower, upper = end.topk(2, largest=False).values.split(1, dim=1)
    return lower, upper


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
    """`boundary` of magnitudes that change little from call to call, such as a layer's from step to step.

    Nearly all values are far from the last threshold, and counting them is enough: only those in a narrow band around
    it are ordered. The result is exact; a threshold that left the band costs one full selection. The band reaches ten
    times as far as the threshold last moved, and nothing but its place is kept between calls.
    """

    def __init__(self) -> None:
        self.edges: tuple[float, float] | None = None
        self.width = 0.01  # of the band beyond each edge, relative to it

    def __call__(self, values: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `boundary(values.abs(), k)`, with no copy of one row of float32 or float64 values on a CPU."""
        on_cpu = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
        if not on_cpu or values.shape[0] > 1:
            return boundary(values.abs(), k)
        found = None if self.edges is None else self._from_band(values[0].detach(), k)
        lower, upper = boundary(values.abs(), k) if found is None else torch.from_numpy(found).view(2, 1, 1)
        self._follow(lower.item(), upper.item())
        return lower, upper

    def _from_band(self, values: Tensor, k: int) -> np.ndarray | None:
        """The k-th magnitude and the next, if both are in the band."""
        low, high = self.edges[0] * (1 - self.width), self.edges[1] * (1 + self.width)
        below, band = _below_and_within(values, low, high)
        rank = k - below  # of the k-th value within the band, from 1
        return np.partition(band, (rank - 1, rank))[rank - 1 : rank + 1] if 1 <= rank < len(band) else None

    def _follow(self, lower: float, upper: float) -> None:
        """Moves the band; its width follows fast movement at once and slow movement over a few calls."""
        if self.edges is not None and self.edges[1] > 0:
            moved = max(abs(lower - self.edges[0]), abs(upper - self.edges[1])) / self.edges[1]
            self.width = min(0.5, max(1e-3, 0.8 * self.width, 10 * moved))
        self.edges = (lower, upper)


def _below_and_within(values: Tensor, low: float, high: float) -> tuple[int, np.ndarray]:
    """How many magnitudes are below `low`, and those in [low, high]; values: (units,), float32 or float64 on a CPU."""
    kernels = cpu_kernels() if values.dtype == torch.float32 and values.is_contiguous() else None
    if kernels is not None:
        return kernels.count_and_band(values, low, high)
    rest, below, band = values.numpy(), 0, []
    size = min(len(rest), BLOCK)
    magnitudes, is_below, in_band = np.empty(size, rest.dtype), np.empty(size, bool), np.empty(size, bool)
    for start in range(0, len(rest), size):
        block = rest[start : start + size]
        m, b, i = (scratch[: len(block)] for scratch in (magnitudes, is_below, in_band))
        np.abs(block, out=m)
        np.less(m, low, out=b)
        below += np.count_nonzero(b)
        np.less_equal(m, high, out=i)
        band.append(m[np.not_equal(i, b, out=i)])
    return below, np.concatenate(band)
