"""The unconstrained export (`pruneexp.surgery.upscale`) of a finished run, and its files.

    model.safetensors  keep.safetensors  structure.json

The order of channels follows from what every layer keeps, so that the network is rebuilt from a fresh one with
keep.safetensors alone, and then takes its weights. structure.json:

    {"format": 1, "channels": mode, "input": shape of an image}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.masks import Masks
from pruneexp.models.checkpoints import load_weights, read_state_dict
from pruneexp.models.errors import first_line
from pruneexp.surgery.keep import Keep
from pruneexp.surgery.shrink import Shrunk, check_zeros
from pruneexp.surgery.structure import FORMAT
from pruneexp.surgery.upscale import MODES, Report, export
from pruneexp.surgery.verify import SurgeryError, verify
from pruneexp.surgery.weight_masks import keep_from_masks
from pruneexp.tensor_files import save_tensors

KEEP = "keep.safetensors"


@dataclass(frozen=True)
class OwnChannels(Shrunk):
    """keep: layer -> the input channels that it reads. input: shape of an image. report: what the export did."""

    keep: Keep
    input: tuple[int, ...]
    report: Report


def own_channels(network: nn.Module, masks: Masks, example: Any, *, mode: str) -> OwnChannels:
    """A new network in which each layer reads only the channels that it kept, whatever the others read.

    network: plain, its weights zero where `masks` (parameter name -> bool, True = keep, broadcastable) are False; it is
    left as it is. example: a batch of images. mode: one of `pruneexp.surgery.upscale.MODES`.

    Raises:
        SurgeryError: a weight is not zero where its mask is False, the network reads texts or cannot be traced, or the
            new network differs from it.
    """
    if not isinstance(example, Tensor):
        raise SurgeryError(f"--channels {mode}: is for networks of images; leave it out for encoders of texts")
    check_zeros(network, masks)
    try:
        keep = keep_from_masks(network, example, masks)
        module, report = export(network, example, keep, mode=mode)
    except (ValueError, RuntimeError) as error:
        raise SurgeryError(f"--channels {mode}: {first_line(error)}; leave --channels out") from error
    try:
        error = verify(network, module, [example])
    except SurgeryError as failure:
        raise SurgeryError(
            f"--channels {mode}: {failure}: a normalisation makes constants of pruned channels, which go with them; "
            "leave --channels out, which keeps or folds them, or prune with pattern=input_channel"
        ) from failure
    return OwnChannels(module, [], error, keep, tuple(example.shape[1:]), report)


def save_own_channels(exported: OwnChannels, folder: Path) -> None:
    """Writes an export into a folder."""
    save_tensors(exported.network.state_dict(), folder / "model.safetensors")
    save_tensors(exported.keep, folder / KEEP)
    written = {"format": FORMAT, "channels": exported.report.mode, "input": list(exported.input)}
    (folder / "structure.json").write_text(json.dumps(written, indent=1) + "\n")


def load_own_channels(network: nn.Module, folder: Path, structure: Mapping[str, Any]) -> nn.Module:
    """The exported network, in eval mode. network: freshly built. structure: the content of structure.json.

    Raises:
        SurgeryError: the files are damaged or belong to another network.
        ValueError: the weights cannot be read.
    """
    mode, shape = structure["channels"], structure.get("input")
    if mode not in MODES or not isinstance(shape, list) or structure.get("format") != FORMAT:
        raise SurgeryError(
            f"{folder}: structure.json is not what this version of pruneexp writes; export the run again"
        )
    try:
        keep = read_state_dict(folder / KEEP, key="folder")
        module, _ = export(network, torch.zeros(1, *shape), keep, mode=mode)
    except (ValueError, RuntimeError, TypeError) as error:
        raise SurgeryError(
            f"{folder}: {KEEP} does not fit the {type(network).__name__} ({first_line(error)}); export the run again"
        ) from error
    loaded = load_weights(module, folder / "model.safetensors", key="folder")
    if loaded.missing or loaded.unexpected:
        raise SurgeryError(f"{folder}: model.safetensors and {KEEP} differ; export the run again")
    return module.eval()
