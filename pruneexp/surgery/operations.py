"""Which operations between layers treat every channel for itself, by what autograd recorded of them."""

from typing import Any

from pruneexp.models.cifar_resnet import ZeroPadShortcut

ELEMENTWISE = frozenset(
    f"{name}Backward"
    for name in (
        *("Relu", "Hardtanh", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid"),
        *("Tanh", "Softplus", "LogSigmoid", "Threshold", "Clamp", "ClampMin", "Abs", "Neg", "Pow", "Sqrt", "Exp"),
        *("Add", "Sub", "Mul", "Div", "Minimum", "Maximum", "NativeDropout", "Clone", "Alias", "ToCopy"),
        *("NativeBatchNorm", "CudnnBatchNorm", "Addmm", "Mm", "Convolution", "AvgPool2D", "AvgPool3D"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D"),
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "UpsampleNearest2D", "UpsampleBilinear2D", "UpsampleBicubic2D"),
    )
)
"""Operations that treat every channel for itself, by autograd's names without the digits at their end."""


def obstacle(node: Any) -> str | None:
    """Why channels cannot be removed that pass through this node; None if nothing is in the way."""
    kind, operation = node.type.name, type(node.grad_fn).__name__.rstrip("0123456789")
    if kind in ("CONCAT", "OUTPUT", "PRELU"):
        return None
    if kind == "RESHAPE":
        kept = _keeps_channels(node.grad_fn) or _enters_linear(node)
        return None if kept else "passes through a change of shape that mixes channels"
    if kind == "SLICE":
        places = len(node.grad_fn._saved_self_sym_sizes) >= 4 and 2 <= node.grad_fn._saved_dim < 2**63
        return None if places else "is cut by a slice of channels"
    if kind == "ELEMENTWISE" and _is_channelwise(node, operation):
        return None
    what = operation if kind == "ELEMENTWISE" else type(node.module).__name__
    return f"passes through {what}, which may not treat each channel for itself"


def _is_channelwise(node: Any, operation: str) -> bool:
    if operation in ("ConstantPadNdBackward", "IndexBackward"):
        return all(isinstance(output.module, ZeroPadShortcut) for output in node.outputs)
    if operation == "TBackward":
        return not node.inputs  # the transposed weight of a linear layer
    if operation == "MeanBackward":
        size = len(node.grad_fn._saved_self_sym_sizes) if hasattr(node.grad_fn, "_saved_self_sym_sizes") else 0
        dims = getattr(node.grad_fn, "_saved_dim", ())
        dims = {(d if d < 2**63 else d - 2**64) % size for d in dims} if size else set()
        return bool(dims) and min(dims) >= 2
    return operation in ELEMENTWISE or (operation.startswith("Squeeze") and _keeps_channels(node.grad_fn))


def _enters_linear(node: Any) -> bool:
    """Whether this is how a linear layer lays out what it reads: (..., C) to (all others, C)."""
    products = [type(output.grad_fn).__name__.rstrip("0123456789") for output in node.outputs]
    return bool(products) and set(products) <= {"AddmmBackward", "MmBackward"}


def _keeps_channels(grad_fn: Any) -> bool:
    """Whether a change of shape leaves channels apart: (N, C, ...) to (N, C * ...), or (..., C) to (..., C)."""
    before = tuple(getattr(grad_fn, "_saved_self_sym_sizes", ()))
    after = tuple(grad_fn._input_metadata[0].shape)
    flattened = len(after) == 2 and before[:1] == after[:1]
    same_channels = len(before) in (2, 4, 5) and len(after) in (2, 4, 5) and before[:2] == after[:2]
    same_last = len(before) <= 3 and len(after) <= 3 and before[-1:] == after[-1:]
    return bool(before) and (flattened or same_channels or same_last)
