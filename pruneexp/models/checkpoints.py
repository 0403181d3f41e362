"""Reading state dicts that people have, and putting them into a network."""

import logging
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.models.errors import first_line
from pruneexp.models.parts import parts

logger = logging.getLogger("pruneexp")

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict, beside the epoch, the optimizer and so on."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel or DDP, and torch.compile, put before every key."""


@dataclass(frozen=True)
class Loaded:
    """Which keys did not meet: `missing` in the file, `unexpected` by the network. Sorted by the network, the file."""

    missing: list[str]
    unexpected: list[str]


def load_weights(network: nn.Module, path: Path, *, key: str = "model.checkpoint") -> Loaded:
    """The keys that did not meet, after loading the state dict in `path` into `network`, in place.

    Half-precision tensors are cast to the network's dtype. Missing and unexpected keys are logged as a warning.
    key: of the config that names the file, for errors.

    Raises:
        ValueError: the file cannot be read as tensors, no key fits, or a tensor has another shape, is of whole numbers
            or not finite.
    """
    state = read_state_dict(path, key=key)
    own = network.state_dict()
    if not state.keys() & own.keys():
        raise ValueError(
            f"{key}={path}: none of its {len(state)} keys fits the model; the file has {few(list(state))}, "
            f"the model {few(list(own))}; choose the model that the file was saved from"
        )
    _check_shapes(network, state, f"{key}={path}")
    _check_values(network, state, f"{key}={path}")
    result = network.load_state_dict(state, strict=False)  # fills in the step counters that old BatchNorms lack
    loaded = Loaded(result.missing_keys, result.unexpected_keys)
    if loaded.missing:
        logger.warning("%s: %d keys of the model are not in it: %s", path, len(loaded.missing), few(loaded.missing))
    if loaded.unexpected:
        logger.warning(
            "%s: %d of its keys are not in the model: %s", path, len(loaded.unexpected), few(loaded.unexpected)
        )
    return loaded


def read_state_dict(path: Path, *, key: str = "model.checkpoint") -> dict[str, Tensor]:
    """The tensors in a file, name -> CPU tensor, unwrapped and without prefixes. Never runs code from the file.

    key: of the config, for errors.

    Raises:
        ValueError: the suffix is unknown, the file is damaged, holds code, or holds no tensors.
    """
    content = _read(path, key)
    while isinstance(content, dict) and any(isinstance(content.get(w), dict) for w in WRAPPERS):
        content = next(content[w] for w in WRAPPERS if isinstance(content.get(w), dict))
    named = content.items() if isinstance(content, dict) else ()
    state = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{key}={path}: holds no named tensors; save the model's state_dict()")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read(path: Path, key: str) -> Any:
    """Whatever a file holds, tensors on the CPU."""
    from safetensors.torch import load_file

    if path.suffix not in (".safetensors", ".pt", ".pth", ".th", ".bin"):
        raise ValueError(f"{key}={path}: unknown kind of file; give .safetensors, .pt, .pth, .th or .bin")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))  # how torch names what is not on its list of harmless things
        if found:
            raise ValueError(
                f"{key}={path}: holds a Python object ({found[1]}) besides tensors and was not opened, because that "
                "can run code; where you trust it, convert it to .safetensors"
            ) from error
        raise ValueError(f"{key}={path}: damaged, or no PyTorch file; get it again") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{key}={path}: damaged ({first_line(error)}); get it again") from error


def _check_shapes(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raises ValueError for the first tensor whose shape is not the network's; the classifier is looked at last."""
    classifier, own = parts(network)["classifier"], network.state_dict()
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if not wrong:
        return
    name = min(wrong, key=lambda name: name in classifier)
    hint = (
        "the file is for another number of classes; choose the dataset it was trained on or drop its classifier"
        if name in classifier
        else "choose the model, and its sizes, that the file was saved from"
    )
    shapes = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
    raise ValueError(f"{source}: {name} has shape {shapes}; {hint}")


def _check_values(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raises ValueError for the first tensor that is NaN or infinite somewhere, or of whole numbers for real ones."""
    for name, own in network.state_dict().items():
        if name not in state or not own.is_floating_point():
            continue
        if not state[name].is_floating_point():
            kind = str(state[name].dtype).removeprefix("torch.")
            raise ValueError(f"{source}: {name} is {kind}, as in quantised models; give the file in floating point")
        if not state[name].float().isfinite().all():
            raise ValueError(f"{source}: {name} holds NaN or infinity; give one of a training that did not diverge")


def few(keys: Sequence[str]) -> str:
    """The first three names, and dots if there are more."""
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
