"""What operations do to constant channels: one rule for each operation, by its name in torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply"})


@dataclass(frozen=True)
class Channels:
    """What is known of a tensor. dim: its channel dimension. known: bool (channels,), True where constant."""

    dim: int
    known: Tensor


@dataclass(frozen=True)
class Call:
    """A call of a function of torch. known: tensor -> what is known of it, or None. zeros: of a product, for each
    argument, bool (channels,), where it is the constant zero, or None.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    known: Callable[[Any], Channels | None]
    zeros: list[Tensor | None]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def input(self) -> Channels | None:
        """What is known of the first argument."""
        return self.known(self.get(0, "input"))


Rule = Callable[[Call], Channels | None]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def values(tensor: Tensor, dim: int) -> Tensor:
    """One value of each channel, shape (channels,)."""
    return tensor.detach().movedim(dim, 0).flatten(1)[:, 0].clone() if tensor.dim() > 1 else tensor.detach().clone()


@_rule(
    *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "clamp", "clip", "abs", "neg", "square"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    *("clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16", "type_as"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "interpolate", "prelu"),
)
def _same(call: Call) -> Channels | None:
    """Functions of one channel that make a constant of a constant. Max-pooling pads with minus infinity."""
    return call.input()


@_rule("add", "iadd", "radd", "sub", "isub", "rsub", "div", "truediv", "itruediv", "minimum", "maximum")
def _both(call: Call) -> Channels | None:
    """Functions of two values: constant where both are."""
    left, right = call.get(0, "input"), call.get(1, "other")
    if not isinstance(right, Tensor):
        return call.known(left) if isinstance(right, int | float) else None
    return _intersection(call.known(left), call.known(right))


@_rule(*PRODUCTS)
def _product(call: Call) -> Channels | None:
    """Products: constant where both are, and where one is zero, whatever the other."""
    left, right = call.get(0, "input"), call.get(1, "other")
    if not isinstance(right, Tensor):
        return call.known(left) if isinstance(right, int | float) else None
    both = _intersection(call.known(left), call.known(right))
    for tensor, zero in zip((left, right), call.zeros, strict=False):
        found = call.known(tensor)
        if zero is None or found is None or call.output.dim() != tensor.dim():
            continue
        if call.output.shape[found.dim] == zero.numel() and (both is None or both.dim == found.dim):
            both = Channels(found.dim, zero if both is None else both.known | zero)
    return both


def _intersection(left: Channels | None, right: Channels | None) -> Channels | None:
    if left is None or right is None or left.dim != right.dim or left.known.shape != right.known.shape:
        return None
    return Channels(left.dim, left.known & right.known)


@_rule(*LAYERS)
def _layer(call: Call) -> Channels:
    """Convolutions and linear layers: an output is its bias where all inputs of its row are zeros or meet zeros.

    Inputs that are other constants are not followed here: folding them into biases makes zeros of them.
    """
    x, weight, groups = call.get(0, "input"), call.get(1, "weight"), call.get(6, "groups", 1)
    dim = call.output.dim() - max(weight.dim() - 1, 1)
    dead = (weight == 0).flatten(2).all(2) if weight.dim() > 2 else weight == 0
    if "transpose" in call.name:  # weight: (inputs, outputs / groups, *kernel)
        return Channels(dim, dead.reshape(groups, -1, weight.shape[1]).all(1).flatten())
    found = call.known(x)
    if found is not None and found.dim == dim:
        silent = (found.known & (values(x, dim) == 0)).reshape(groups, 1, -1)
        dead = dead.reshape(groups, -1, weight.shape[1]) | silent
    return Channels(dim, dead.reshape(weight.shape[0], -1).all(1))


@_rule("batch_norm")
def _batch_norm(call: Call) -> Channels | None:
    """Normalisation by running statistics: a constant of a constant, and beta where gamma is zero."""
    weight, training = call.get(3, "weight"), call.get(5, "training", False)
    found = call.input()
    if training or call.output.dim() < 2:
        return None
    if weight is None:
        return found
    known = weight.detach() == 0
    return Channels(1, known if found is None or found.dim != 1 else known | found.known)


@_rule("layer_norm")
def _layer_norm(call: Call) -> Channels | None:
    """Beta where gamma is zero; the rest depends on all channels."""
    weight = call.get(2, "weight")
    return None if weight is None or weight.dim() != 1 else Channels(call.output.dim() - 1, weight.detach() == 0)


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _average(call: Call) -> Channels | None:
    """Average pooling: constants stay where no zeros are averaged in."""
    return call.input() if is_zero(call.get(3, "padding", 0)) else _only_zeros(call)


@_rule("pad")
def _pad(call: Call) -> Channels | None:
    """Padding: zeros stay zeros, and channels of zeros may come with it."""
    found, pad, mode = call.input(), tuple(call.get(1, "pad")), call.get(2, "mode", "constant")
    x = call.get(0, "input")
    dim = found.dim if found is not None else 1
    if x.dim() <= dim or mode != "constant":
        return found
    place = 2 * (x.dim() - 1 - dim)  # of the channels' two numbers in `pad`, which counts from the last dimension
    others = any(pad[:place]) or any(pad[place + 2 :])
    if call.get(3, "value", None):
        return None
    kept = _only_zeros(call) if others else found
    known = kept.known if kept is not None else torch.zeros(x.shape[dim], dtype=torch.bool)
    before, after = (*pad[place : place + 2], 0, 0)[:2] if len(pad) > place else (0, 0)
    if before < 0 or after < 0:
        return None
    added = [torch.ones(count, dtype=torch.bool) for count in (before, after)]
    return Channels(dim, torch.cat([added[0], known, added[1]]))


@_rule("mean", "sum", "amax", "amin")
def _reduce(call: Call) -> Channels | None:
    """Means over places: constants stay."""
    found, dims = call.input(), call.get(1, "dim")
    if found is None or dims is None:
        return None
    size = call.get(0, "input").dim()
    dims = {d % size for d in (dims if isinstance(dims, tuple | list) else (dims,))}
    if found.dim in dims:
        return None
    gone = 0 if call.output.dim() == size else sum(d < found.dim for d in dims)
    return Channels(found.dim - gone, found.known)


@_rule("flatten", "reshape", "view", "squeeze", "unsqueeze")
def _reshape(call: Call) -> Channels | None:
    """Other shapes of the same numbers, where what comes before the channels, or after them, keeps its shape."""
    found, before, after = call.input(), call.get(0, "input").shape, call.output.shape
    if found is None:
        return None
    dim = found.dim
    if after[: dim + 1] == before[: dim + 1]:
        return found
    if len(after) == dim + 1 and after[:dim] == before[:dim]:  # channels and places in one, channel by channel
        return Channels(dim, found.known.repeat_interleave(before[dim + 1 :].numel()))
    if dim == len(before) - 1 and after[-1:] == before[-1:]:
        return Channels(len(after) - 1, found.known)
    return None


@_rule("permute", "transpose", "swapaxes")
def _permute(call: Call) -> Channels | None:
    """Dimensions in another order."""
    found, size = call.input(), call.output.dim()
    if found is None:
        return None
    given = call.args[1:] or tuple(call.kwargs.get(key) for key in ("dims", "dim0", "dim1") if key in call.kwargs)
    dims = list(given[0]) if isinstance(given[0], tuple | list) else list(given)
    dims = [d % size for d in dims]
    if len(dims) == size:
        return Channels(dims.index(found.dim), found.known)
    first, second = dims
    return Channels({first: second, second: first}.get(found.dim, found.dim), found.known)


@_rule("cat", "concat", "concatenate")
def _cat(call: Call) -> Channels | None:
    """One after the other: along the channels, what was known of each; else, what is known of all."""
    tensors = call.get(0, "tensors")
    all_found = [call.known(tensor) for tensor in tensors]
    dims = {found.dim for found in all_found if found is not None}
    if len(dims) != 1:
        return None
    dim = dims.pop()
    known = [
        found.known if found is not None else torch.zeros(tensor.shape[dim], dtype=torch.bool)
        for tensor, found in zip(tensors, all_found, strict=True)
    ]
    return Channels(dim, torch.cat(known)) if call.get(1, "dim", 0) % call.output.dim() == dim else None


@_rule("getitem")
def _getitem(call: Call) -> Channels | None:
    """Slices of places, and slices or lists of channels."""
    found, index = call.known(call.args[0]), call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if found is None or not all(isinstance(part, slice | list) for part in index):
        return None
    if any(isinstance(part, list) for position, part in enumerate(index) if position != found.dim):
        return None
    part = index[found.dim] if found.dim < len(index) else slice(None)
    return Channels(found.dim, found.known[part])


def is_zero(padding: Any) -> bool:
    """Whether a convolution's or a pooling's padding adds nothing."""
    return padding == "valid" or (padding != "same" and not torch.as_tensor(padding).any())


def _only_zeros(call: Call) -> Channels | None:
    """Of the first argument's constants, those that are zero."""
    found = call.input()
    if found is None:
        return None
    return Channels(found.dim, found.known & (values(call.get(0, "input"), found.dim) == 0))
