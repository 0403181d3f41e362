"""The file of a checkpoint: plain tensors and numbers, sealed with a digest so that no damaged byte goes unnoticed."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

DIGEST_BYTES = hashlib.sha256().digest_size


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a state, which `read_checkpoint` gives back."""
    torch.save(state, path)
    seal(path)


def seal(path: Path) -> None:
    """Writes the digest of a checkpoint into the comment at the end of the zip archive that it is.

    torch.load does not even look at the checksums that torch.save writes, so that most single bytes could change
    without a word; and those do not cover the archive's own tables.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = bytes(DIGEST_BYTES)
    digest = _digest_of_rest(path)
    with path.open("rb+") as file:
        file.seek(-DIGEST_BYTES, os.SEEK_END)
        file.write(digest)


def _digest_of_rest(path: Path) -> bytes:
    """The SHA-256 of all of a file but its own digest at the end."""
    left, digest = path.stat().st_size - DIGEST_BYTES, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(min(left, 2**20)):
            digest.update(block)
            left -= len(block)
    return digest.digest()


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint whose every byte is as it was written.

    Raises:
        ValueError: another digest than it was sealed with; or nearly anything else, as the damage has it.
    """
    with path.open("rb") as file:
        file.seek(-DIGEST_BYTES, os.SEEK_END)
        if file.read() != _digest_of_rest(path):
            raise ValueError("another checksum")
    return torch.load(path, map_location=device, weights_only=True)
