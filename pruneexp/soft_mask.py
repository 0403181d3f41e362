"""The soft mask of single weights times the weights, w_hat = m(w) w, in few passes over memory.

    m(w)       = sigmoid((w^2 - t^2) / tau)
    d w_hat/dw = m (1 + (2 w^2 / tau) (1 - m))        t and tau held constant

The formulas are those of pruneexp.methods.pdp. Nothing but w is kept for the backward pass: computing m a second time
costs little more than storing and reading it. On a CPU compiled loops (pruneexp.cpu_kernels) make one pass of each;
without them the steps run over blocks that stay in its cache.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from pruneexp.cpu_kernels import CpuKernels, cpu_kernels
from pruneexp.recomputed import Memory
from pruneexp.selection import BLOCK, in_memory_order


def soft_masked(
    weight: Tensor, threshold_squared: Tensor, temperature: Tensor, *, memory: Memory = torch.empty_like
) -> Tensor:
    """m(w) w, in the shape, type and memory layout of `weight`; gradient flows to `weight` only, and only once.

    threshold_squared, temperature: t^2 >= 0 and tau > 0, one number each. 16-bit weights are computed with in 32 bits.
    memory: where the backward pass gets that of its result from.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    return _SoftMasked.apply(weight.to(wide), threshold_squared, temperature, memory).to(weight.dtype)


class _SoftMasked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, t_squared: Tensor, tau: Tensor, memory: Memory) -> Tensor:
        ctx.save_for_backward(weight, t_squared, tau)
        ctx.memory = memory
        result = torch.empty_like(weight)
        mask, pieces = _mask_and_pieces(t_squared, tau, weight, result)
        for w, out in pieces:
            mask.masked(w, out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, t_squared, tau = ctx.saved_tensors
        result = ctx.memory(weight)
        mask, pieces = _mask_and_pieces(t_squared, tau, weight, gradient, result)
        for w, g, out in pieces:
            mask.masked_backward(w, g, out)
        return result, None, None, None


class _Mask:
    """The two formulas on any device, in operations of torch; nothing waits for the values of t^2 and tau."""

    def __init__(self, t_squared: Tensor, tau: Tensor) -> None:
        self.t_squared = t_squared.view(())
        self.tau = tau.view(())

    def masked(self, w: Tensor, out: Tensor) -> None:
        """m w, written to `out`."""
        self.mask(w, out).mul_(w)

    def masked_backward(self, w: Tensor, gradient: Tensor, out: Tensor) -> None:
        """gradient (m + 2 (w m (1 - m)) w / tau), written to `out`."""
        mask = self.mask(w, out)
        inner = torch.ops.aten.sigmoid_backward(w, mask)  # w m (1 - m)
        self.add_twice_over_tau(mask, inner, w).mul_(gradient)

    def mask(self, w: Tensor, out: Tensor) -> Tensor:
        """m, written to `out`."""
        return torch.addcmul(self.t_squared, w, w, value=-1, out=out).div_(-self.tau).sigmoid_()

    def add_twice_over_tau(self, mask: Tensor, inner: Tensor, w: Tensor) -> Tensor:
        """mask + 2 inner w / tau, in the place of `mask`."""
        return mask.addcdiv_(inner.mul_(w), self.tau, value=2)


class _MaskOnCpu(_Mask):
    """The same with t^2 and tau as numbers, which saves operations."""

    def __init__(self, t_squared: Tensor, tau: Tensor) -> None:
        self.sharpness = 1 / tau.item()
        self.offset = torch.tensor(-t_squared.item() * self.sharpness, dtype=torch.float64)

    def mask(self, w: Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(self.offset, w, w, value=self.sharpness, out=out).sigmoid_()

    def add_twice_over_tau(self, mask: Tensor, inner: Tensor, w: Tensor) -> Tensor:
        return mask.addcmul_(inner, w, value=2 * self.sharpness)


class _CompiledMask(_Mask):
    """The same in one pass each."""

    def __init__(self, kernels: CpuKernels, t_squared: Tensor, tau: Tensor) -> None:
        self.kernels = kernels
        self.sharpness = 1 / tau.item()
        self.offset = -t_squared.item() * self.sharpness

    def masked(self, w: Tensor, out: Tensor) -> None:
        self.kernels.masked(w, out, self.sharpness, self.offset)

    def masked_backward(self, w: Tensor, gradient: Tensor, out: Tensor) -> None:
        self.kernels.masked_backward(w, gradient, out, self.sharpness, self.offset)


def _mask_and_pieces(t_squared: Tensor, tau: Tensor, *tensors: Tensor) -> tuple[_Mask, list[tuple[Tensor, ...]]]:
    """What computes the mask of the first tensor here, and the pieces of all of them that it takes at a time."""
    if not _eager_on_cpu(tensors[0]):
        return _Mask(t_squared, tau), [tensors]
    ordered = _ordered(tensors)
    if ordered is None:
        return _MaskOnCpu(t_squared, tau), [tensors]
    kernels = cpu_kernels() if tensors[0].dtype == torch.float32 else None
    if kernels is not None:
        return _CompiledMask(kernels, t_squared, tau), [ordered]
    return _MaskOnCpu(t_squared, tau), list(zip(*(tensor.view(-1).split(BLOCK) for tensor in ordered), strict=True))


def _ordered(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Contiguous views of tensors that share one dense memory layout; None of others."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return tensors
    if len({_strides(tensor) for tensor in tensors}) > 1:
        return None
    ordered = tuple(in_memory_order(tensor) for tensor in tensors)
    return ordered if all(tensor.is_contiguous() for tensor in ordered) else None


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides that matter: those of dimensions longer than one."""
    return tuple(stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


def _eager_on_cpu(tensor: Tensor) -> bool:
    """Whether to choose pieces here: torch.compile makes its own loops, and a GPU is slower at many small ones."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
