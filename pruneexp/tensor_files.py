"""Writing tensors to .safetensors files."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors of any layout and device to a file that others may read where they may read new files at all.

    (Left to itself, safetensors 0.8 and later write files that only their owner can read, whatever the umask.)
    """
    path = Path(path)
    path.touch()
    mode = path.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)
