"""A network in other file formats, each read back and compared before it counts as written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.measure.latency import onnx
from pruneexp.models.errors import first_line
from pruneexp.surgery.packed import load_packed, save_packed
from pruneexp.surgery.verify import relative_error
from pruneexp.tasks.base import predict

FILES = {"onnx": "model.onnx", "torch_export": "model.pt2", "compressed": "packed.safetensors"}

FLOAT32_ERROR = 1e-4
"""Relative error that other kernels may make in float32, where a sum in another order makes about 1e-6; ours."""

OUTPUT = "outputs"  # name of the result in an ONNX file

Written = dict[str, Any]  # file, bytes, relative_error


class Positional(nn.Module):
    """A network whose inputs come in order instead of by name, and which returns logits only, as exports want it."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """The network's outputs, (batch, outputs)."""
        return predict(self.network, dict(zip(self.names, inputs, strict=True)) if self.names else inputs[0])


def write_onnx(network: nn.Module, example: Any, path: Path) -> Written:
    """An ONNX file for any batch size, and for any length of texts; compared through onnxruntime.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        ValueError: the network cannot be traced, or the file computes something else.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("--onnx: needs more packages; pip install 'pruneexp[onnx]'") from error
    program, names = _program(network, example), list(example) if isinstance(example, dict) else ["images"]
    exported = torch.onnx.export(program, input_names=names, output_names=[OUTPUT], dynamo=True, verbose=False)
    exported.save(str(path))
    return _written(path, _compared(network, onnx(path), example, "onnx"))


def write_torch_export(network: nn.Module, example: Any, path: Path) -> Written:
    """A program of torch.export, for `torch.export.load(path).module()`; inputs in order. Any batch size and length.

    The weights lie in it as plain bytes. torch.export.load itself, though, unpickles what a file asks it to: only load
    files that you made or trust. model.safetensors with structure.json has no such risk.

    Raises:
        ValueError: the network cannot be traced, or the file computes something else.
    """
    torch.export.save(_program(network, example), path)
    program = torch.export.load(path).module()

    def run(inputs: Any) -> Tensor:
        return program(*inputs.values()) if isinstance(inputs, dict) else program(inputs)

    return _written(path, _compared(network, run, example, "torch-export"))


def write_compressed(network: nn.Module, example: Any, path: Path) -> Written:
    """The weights with zeros as single bits, see `pruneexp.surgery.packed`; ValueError if they do not read back."""
    state = network.state_dict()
    size = save_packed(state, path)
    back = load_packed(path)
    if back.keys() != state.keys() or any(not torch.equal(back[name], state[name]) for name in state):
        raise ValueError("--compressed: the written weights do not read back as they were")
    return {**_written(path, 0.0), "tensor_bytes": size}


WRITERS: dict[str, Callable[[nn.Module, Any, Path], Written]] = {
    "onnx": write_onnx,
    "torch_export": write_torch_export,
    "compressed": write_compressed,
}


def _program(network: nn.Module, example: Any) -> Any:
    """The network as torch.export traces it, batch size and length of texts left open."""
    names = list(example) if isinstance(example, dict) else []
    inputs = tuple(example.values()) if names else (example,)
    inputs = tuple(tensor[:1].repeat(2, *[1] * (tensor.dim() - 1)) for tensor in inputs)  # one would be fixed as one
    free = torch.export.Dim.DYNAMIC
    shapes = tuple({0: free, 1: free} if names else {0: free} for _ in inputs)
    try:
        return torch.export.export(Positional(network.eval(), names), inputs, dynamic_shapes=(shapes,))
    except Exception as error:  # of the tracer or of the network's code
        raise ValueError(f"torch.export cannot trace {type(network).__name__}: {first_line(error)}") from error


@torch.no_grad()
def _compared(network: nn.Module, run: Callable[[Any], Tensor], example: Any, option: str) -> float:
    """The largest relative error over batches of one and of five. Raises ValueError if it is too large."""
    worst = 0.0
    for size in (1, 5):
        batch = {key: _rows(value, size) for key, value in example.items()} if isinstance(example, dict) else None
        batch = _rows(example, size) if batch is None else batch
        worst = max(worst, relative_error(predict(network, batch), run(batch)))
    if not worst <= FLOAT32_ERROR:
        raise ValueError(f"--{option}: the file computes something else: relative error {worst:.2g} > {FLOAT32_ERROR}")
    return worst


def _rows(tensor: Tensor, size: int) -> Tensor:
    return tensor.repeat(-(-size // len(tensor)), *[1] * (tensor.dim() - 1))[:size]


def _written(path: Path, error: float) -> Written:
    return {"file": path.name, "bytes": path.stat().st_size, "relative_error": error}
