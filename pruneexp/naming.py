"""The hash over everything that changes a result, and the folder that is named by it."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from pruneexp.config import NOT_IN_HASH, Config, auxiliary_keys, dense_config

LOCATION_KEYS = frozenset({"root", "workers", "download", "checkpoint_minutes"})
"""Keys that say where data lies and how often to save, at any depth; they do not change the result."""


CONTENT_KEYS = frozenset({"checkpoint", "name_or_path", "path", "tokenizer", "teacher", "run"})
"""Keys that name a file or folder whose content changes the result, at any depth."""


def run_hash(config: Config) -> str:
    """Eight hex digits over everything that changes the result: the name of a run.

    A null or false value is an option that is off and stays out, so that an option added later, off by default, renames
    no run. Files and folders enter by their content. The dense run, if there is one, enters by its own hash.
    """
    relevant = hashed_options(config)
    if config["dense"] == "train":
        relevant["dense"] = run_hash(dense_config(config))
    elif config["dense"] not in ("none", None):
        relevant["dense"] = _content(config["dense"])
    text = json.dumps(relevant, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def hashed_options(config: Config) -> Config:
    """What of a config enters its hash, but for the dense run: files as their content, nothing that is off."""
    return _relevant({key: value for key, value in config.items() if key not in NOT_IN_HASH}) or {}


def _relevant(value: Any, key: str = "") -> Any:
    """`value` as it enters the hash, None if it does not."""
    if value is None or value is False or key in LOCATION_KEYS:
        return None
    if isinstance(value, dict):
        parts = {inner: _relevant(item, inner) for inner, item in value.items()}
        return {inner: item for inner, item in parts.items() if item is not None} or None
    if key in CONTENT_KEYS:
        return _content(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # epochs=1.0 and epochs=1 are the same
    return value


def _content(name: str) -> str:
    """A fingerprint of the file or folder of that name; the name itself where there is none (a hub's name)."""
    path = Path(name)
    if path.is_file():
        stat = path.stat()
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    if path.is_dir():
        if (path / "summary.json").is_file():
            return _content(str(path / "model.safetensors"))
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = [f"{file.relative_to(path)} {file.stat().st_size}" for file in files]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    return name


@functools.lru_cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    """The SHA-256 of a file, read once while it stays as it is: many runs share a checkpoint."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_folder(config: Config) -> Path:
    """The folder of a run: <output_dir>/<experiment>/<method>-<model>-<dataset>-s<sparsity>-seed<n>-<hash>.

    With auxiliary tasks <dataset> is <dataset>+<auxiliary>.
    """
    choices = config["choices"]
    words = [choices[group].replace("/", "_") for group in ("method", "model", "dataset")]
    words[-1] = "+".join([words[-1], *auxiliary_keys(config)])
    if "sparsity" in config["method"]:
        words.append(f"s{config['method']['sparsity']:g}")
    words += [f"seed{config['seed']}", run_hash(config)]
    return Path(config["output_dir"]) / config["experiment_name"] / "-".join(words)
