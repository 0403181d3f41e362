"""The soft mask of single weights times the weights, w_hat = m(w) w, in few passes over memory.

    m(w)       = sigmoid((w^2 - t^2) / tau)
    d w_hat/dw = m (1 + (2 w^2 / tau) (1 - m))        t and tau held constant

The formulas are those of pruneexp.methods.pdp. Nothing but w is kept for the backward pass: computing m a second time
costs little more than storing and reading it. On a CPU the steps run over blocks that stay in its cache.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from pruneexp.selection import BLOCK, in_memory_order


def soft_masked(weight: Tensor, threshold_squared: Tensor, temperature: Tensor) -> Tensor:
    """m(w) w, in the shape, type and memory layout of `weight`; gradient flows to `weight` only, and only once.

    threshold_squared, temperature: t^2 >= 0 and tau > 0, one number each. 16-bit weights are computed with in 32 bits.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    constants = (value.view(()).to(wide) for value in (threshold_squared, temperature))
    return _SoftMasked.apply(weight.to(wide), *constants).to(weight.dtype)


class _SoftMasked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, t_squared: Tensor, tau: Tensor) -> Tensor:
        ctx.save_for_backward(weight, t_squared, tau)
        mask = _Mask(weight, t_squared, tau)
        result = torch.empty_like(weight)
        for w, out in _blocks(weight, result):
            mask(w, out).mul_(w)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, t_squared, tau = ctx.saved_tensors
        mask = _Mask(weight, t_squared, tau)
        result = torch.empty_like(weight)
        for w, g, out in _blocks(weight, gradient, result):
            mask.slope(w, out).mul_(g)
        return result, None, None


class _Mask:
    """m and d w_hat/dw. Their constants are numbers on a CPU, tensors elsewhere so that nothing waits for a device."""

    def __init__(self, weight: Tensor, t_squared: Tensor, tau: Tensor) -> None:
        self.t_squared = t_squared
        self.tau = tau
        self.eager_on_cpu = _eager_on_cpu(weight)
        if self.eager_on_cpu:
            self.sharpness = 1 / tau.item()
            self.offset = torch.tensor(-t_squared.item() * self.sharpness, dtype=weight.dtype)

    def __call__(self, w: Tensor, out: Tensor) -> Tensor:
        """m, written to `out`."""
        if self.eager_on_cpu:
            return torch.addcmul(self.offset, w, w, value=self.sharpness, out=out).sigmoid_()
        return torch.addcmul(self.t_squared, w, w, value=-1, out=out).div_(-self.tau).sigmoid_()

    def slope(self, w: Tensor, out: Tensor) -> Tensor:
        """m + 2 (w m (1 - m)) w / tau, written to `out`; the brackets are what a sigmoid's backward pass computes."""
        mask = self(w, out)
        inner = torch.ops.aten.sigmoid_backward(w, mask)
        if self.eager_on_cpu:
            return mask.addcmul_(inner, w, value=2 * self.sharpness)
        return mask.addcdiv_(inner.mul_(w), self.tau, value=2)


def _blocks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Flat pieces of tensors that share one dense memory layout; elsewhere than on a CPU, or without, all at once."""
    if tensors[0].numel() <= BLOCK or not _eager_on_cpu(tensors[0]):
        return [tensors]
    if len({_strides(tensor) for tensor in tensors}) > 1:
        return [tensors]
    ordered = [in_memory_order(tensor) for tensor in tensors]
    if not all(tensor.is_contiguous() for tensor in ordered):
        return [tensors]
    return list(zip(*(tensor.view(-1).split(BLOCK) for tensor in ordered), strict=True))


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides that matter: those of dimensions longer than one."""
    return tuple(stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


def _eager_on_cpu(tensor: Tensor) -> bool:
    """Whether blocks help: a compiler fuses the whole formula itself, and a GPU is slower at many small pieces."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
