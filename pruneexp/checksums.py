"""Checksums of a finished run's files, so that a damaged or edited one is noticed before anything is made of it.

They stand in summary.json under `sha256`: file name -> digest, and `config` -> a digest of the options themselves,
which stays the same when data or the folder is moved. Neither .safetensors files nor YAML have checksums of their own.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIG = "config"

FREE_KEYS = frozenset(
    {"output_dir", "experiment_name", "group", "device", "compile", "deterministic", "force", "logger"}
    | {"root", "path", "download", "workers", "checkpoint", "name_or_path", "tokenizer", "pretrained", "teacher", "run"}
)
"""Keys, at any depth, that may be edited in config.yaml after the run: where things lie, and what changes no result."""


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path, names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """What summary.json says under `sha256` of those files that are there, and of the config."""
    found = {name: digest(folder / name) for name in names if (folder / name).is_file()}
    return {**found, CONFIG: config_digest(config)}


def config_digest(config: Mapping[str, Any]) -> str:
    """A digest of the options that an edit of config.yaml must leave as they were."""
    text = json.dumps(_fixed(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _fixed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _fixed(item) for key, item in value.items() if key not in FREE_KEYS}
    return [_fixed(item) for item in value] if isinstance(value, list | tuple) else value


def check_files(folder: Path, summary: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError if one of these files is not what it was when the run was finished.

    What the summary has no checksum of is not checked: runs of earlier versions have none.
    """
    for name in names:
        expected, path = summary.get("sha256", {}).get(name), folder / name
        if expected is not None and path.is_file() and digest(path) != expected:
            raise ValueError(
                f"{path}: is damaged, its checksum is not the one in summary.json; restore it, or run again with "
                "force=true"
            )


def check_config(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError if config.yaml was edited after the run, but for where things lie."""
    expected = summary.get("sha256", {}).get(CONFIG)
    if expected is not None and config_digest(config) != expected:
        raise ValueError(
            f"{folder / 'config.yaml'}: was edited after the run was finished, so it no longer says how the model was "
            "made; take the change back, or start a run with other options"
        )


def read_config(folder: Path) -> Any:
    """What config.yaml holds; nothing in it is executed."""
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
