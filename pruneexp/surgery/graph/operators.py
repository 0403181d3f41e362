"""What is known of the operations in a graph: which work on each channel by itself, which join tensors, and so on."""

import operator
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import fx, nn

PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
"""Per-channel normalisation in eval mode; channels on axis 1."""

ELEMENTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Tanhshrink),
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
)
POOLING_MODULES = {
    **{getattr(nn, f"{kind}Pool{d}d"): d for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for d in (1, 2, 3)},
    nn.ZeroPad2d: 2,
    nn.ReflectionPad2d: 2,
    nn.ReplicationPad2d: 2,
}
"""Module -> how many trailing axes it works on."""

ELEMENTWISE = frozenset(
    (
        *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
        *("hardtanh", "sigmoid", "logsigmoid", "tanh", "softplus", "softsign", "tanhshrink", "exp", "log", "log1p"),
        *("sqrt", "rsqrt", "reciprocal", "abs", "neg", "pos", "square", "erf", "sin", "cos", "clamp", "clip"),
        *("dropout", "alpha_dropout", "stochastic_depth", "float", "double", "half", "bfloat16", "to", "type"),
    )
)
POOLING = {
    **{f"{kind}_pool{d}d": d for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for d in (1, 2, 3)},
    "interpolate": 2,
}
REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})
JOINS = frozenset({"add", "sub", "mul", "div", "truediv", "maximum", "minimum", "pow"})
MOVEMENTS = frozenset(
    (
        *("flatten", "unflatten", "view", "reshape", "transpose", "swapaxes", "permute", "squeeze", "unsqueeze"),
        *("chunk", "split", "unbind", "getitem", "contiguous", "clone", "detach"),
    )
)
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})


def _named(names: Iterable[str]) -> dict[Callable, str]:
    """Function -> name, wherever torch, its functional module or operator has one of that name."""
    return {
        getattr(space, name): name
        for space in (operator, F, torch)
        for name in names
        if callable(getattr(space, name, 0))
    }


KNOWN = (
    *(*ELEMENTWISE, *POOLING, *REDUCTIONS, *JOINS, *MOVEMENTS, *CONCATENATIONS),
    *("batch_norm", "prelu", "pad"),
)
FUNCTIONS = _named(KNOWN)


def name_of(node: fx.Node) -> str:
    """The plain name of a function or method that is known here ("add" for torch.add and Tensor.add), or ""."""
    if node.op == "call_method":
        return node.target if node.target in KNOWN else ""
    if node.op != "call_function":
        return ""
    if getattr(node.target, "__name__", "") == "stochastic_depth":  # torchvision's, which its graphs keep as one node
        return "stochastic_depth"
    return FUNCTIONS.get(node.target, "")


def described(node: fx.Node) -> str:
    """A node for messages: its operation and its name."""
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{target} (node {node.name})"
