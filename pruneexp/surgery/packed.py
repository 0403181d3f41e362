"""Weights with zeros as a smaller file: one bit per weight and the values that are not zero.

The file is a safetensors file. A tensor that packing makes smaller becomes two: `<name>:bits`, uint8 (ceil(n / 8),),
bit i % 8 of byte i // 8 for the i-th weight in memory order, and `<name>:values` (non-zeros,). Its shape stands in the
file's metadata. All other tensors are stored as they are. `pruneexp.measure.size.compressed_bytes` counts the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

BITS, VALUES, SHAPES = ":bits", ":values", "packed_shapes"


def save_packed(state: Mapping[str, Tensor], path: str | Path) -> int:
    """Writes a state dict, and returns the bytes of its tensors in the file, without the header."""
    tensors, shapes = {}, {}
    for name, given in state.items():
        tensor = given.detach().cpu().contiguous()
        bits, values = _pack(tensor.flatten())
        if bits.nbytes + values.nbytes < tensor.nbytes:
            tensors |= {name + BITS: bits, name + VALUES: values}
            shapes[name] = list(tensor.shape)
        else:
            tensors[name] = tensor
    save_file(tensors, path, metadata={SHAPES: json.dumps(shapes)})
    return sum(tensor.nbytes for tensor in tensors.values())


def load_packed(path: str | Path) -> dict[str, Tensor]:
    """The state dict in such a file, every tensor equal to what was written; a negative zero comes back as zero.

    Raises:
        ValueError: it is no such file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = json.loads((file.metadata() or {})[SHAPES])
            stored = {name: file.get_tensor(name) for name in sorted(file.keys())}
        packed = {name: _unpack(stored.pop(name + BITS), stored.pop(name + VALUES), shapes[name]) for name in shapes}
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: no file of packed weights, or damaged ({error}); write it again") from error
    return stored | packed


def _pack(flat: Tensor) -> tuple[Tensor, Tensor]:
    kept = flat != 0
    padded = torch.nn.functional.pad(kept.to(torch.uint8), (0, -len(kept) % 8)).reshape(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8), flat[kept]


def _unpack(bits: Tensor, values: Tensor, shape: list[int]) -> Tensor:
    kept = (bits.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    tensor = values.new_zeros(torch.Size(shape))
    tensor.view(-1)[kept.flatten()[: tensor.numel()].bool()] = values
    return tensor
