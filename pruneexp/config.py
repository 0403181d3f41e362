"""Configurations as plain dicts: checking them, laying them over each other, and that of the dense run.

Hydra and OmegaConf end in `pruneexp.cli`; here and below a config is dicts, lists, strings and numbers.
"""

import copy
import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pruneexp.credentials import check_no_secret
from pruneexp.value_types import fits, type_name

Config = dict[str, Any]

TOP_LEVEL = {
    "sparsity": float,
    "epochs": float,
    "batch_size": int,
    "seed": int,
    "label_smoothing": float,
    "dense": str,
    "dense_run": dict,
    "multi_task": dict,
    "training": dict,
    "exclude": list[str],
    "device": str,
    "deterministic": bool,
    "precision": str,
    "compile": bool,
    "output_dir": str,
    "experiment_name": str | None,
    "group": str | None,
    "force": bool,
}
"""The type of each top-level option; the groups (model, dataset, ...) are checked against their classes."""

NOT_IN_HASH = frozenset(
    {"output_dir", "experiment_name", "group", "device", "deterministic", "compile", "force", "logger", "choices"}
    | {"dense", "dense_run"}
    | {"sparsity", "exclude", "pattern", "budget", "schedule"}  # reach the method by interpolation
)
"""Top-level keys that do not change the result, or that are in the hash through what they are interpolated into."""


DENSE = "pruneexp.methods.dense.Dense"
"""The method of a dense run. Every other one prunes, a user's own too; without `sparsity` among its options it finds
its sparsity itself."""

GROUPS = frozenset(
    {"model", "dataset", "method", "pattern", "budget", "schedule", "optimizer", "distillation", "logger"}
)
"""The top-level options besides those of `TOP_LEVEL` and auxiliary tasks: one for each group of configs."""

LARGEST_SEED = 2**31 - 1
"""Of each step's random numbers the seed is (seed x 1,000,003 + step) x 4096 + process, which has to fit in 63 bits."""

HANDED_TO_METHOD = ("sparsity", "pattern", "budget", "schedule")
"""Top-level keys that do something only where the method's config takes them."""


AUXILIARY = r"auxiliary(_\w+)?"
"""What the keys of auxiliary tasks look like: auxiliary, auxiliary_2 and so on."""


class ConfigError(ValueError):
    """A configuration that cannot work; the message is one line that names key, value and remedy."""


def normalised(config: Config, given: Collection[str] = ()) -> Config:
    """The config with its top level checked and what follows from other options filled in.

    given: the options that the user set, by dotted name.

    Raises:
        ConfigError: a top-level option has a wrong type or an impossible value, or an option would be ignored.
    """
    _check_names(config)
    _check_finite(config)
    try:
        check_no_secret(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    _check_top_level(config)
    _check_multi_task(config)
    config = copy.deepcopy(config)
    choices = config["choices"]
    config["experiment_name"] = config["experiment_name"] or choices.get("experiment", "default").replace("/", "_")
    if config["method"].get("_target_") == DENSE:
        # A dense run asked for by name is the one that pruning runs start from, but for what the user set.
        config = _with_dense_options(config, _without(config["dense_run"], given), given) | {"dense": "none"}
    else:
        _check_taken(config, given)
    if "pattern" not in config["method"] and choices.get("pattern", "unstructured") != "unstructured":
        raise ConfigError(f"pattern={choices['pattern']}: method={choices['method']} takes no pattern; leave it out")
    pattern = config["method"].get("pattern", {})
    if isinstance(pattern.get("n"), int) and isinstance(pattern.get("m"), int) and 1 <= pattern["n"] <= pattern["m"]:
        implied = 1 - pattern["n"] / pattern["m"]
        if "sparsity" in given and config["sparsity"] != implied:
            raise ConfigError(
                f"sparsity={config['sparsity']}: {pattern['n']}:{pattern['m']} has a sparsity of {implied:g}; "
                "leave sparsity out, or change pattern.n and pattern.m"
            )
        if "sparsity" in config["method"]:
            config["method"]["sparsity"] = implied
    config["sparsity"] = config["method"].get("sparsity")  # what config.yaml records: null where there is no target
    return config


def _check_names(config: Config) -> None:
    """Raises ConfigError for a top-level option that nobody would read, as `+colour=red` adds one."""
    known = {*TOP_LEVEL, *GROUPS, "choices"}
    for key in config:
        if key not in known and not re.fullmatch(AUXILIARY, str(key)):
            raise ConfigError(f"{key}: there is no such option; prune-run --help lists those there are")


def _check_finite(value: Any, path: str = "") -> None:
    """Raises ConfigError for a number that is infinite or NaN, which no option means."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}={value}: must be a finite number")


def _check_top_level(config: Config) -> None:
    """Raises ConfigError for a top-level option of a wrong type or an impossible value."""
    for key, annotation in TOP_LEVEL.items():
        if not fits(config[key], annotation):
            raise ConfigError(f"{key}={config[key]!r}: want {type_name(annotation)}")
    if config["seed"] < 0:
        raise ConfigError(f"seed={config['seed']}: must not be negative")
    if config["seed"] > LARGEST_SEED:
        raise ConfigError(f"seed={config['seed']}: must be at most {LARGEST_SEED}")
    if config["epochs"] <= 0:
        raise ConfigError(f"epochs={config['epochs']}: must be positive")
    if config["batch_size"] < 1:
        raise ConfigError(f"batch_size={config['batch_size']}: must be at least 1")
    if not 0 <= config["label_smoothing"] < 1:
        raise ConfigError(f"label_smoothing={config['label_smoothing']}: must be in [0, 1)")
    if not config["output_dir"]:
        raise ConfigError("output_dir=: is empty; give a folder, or . for this one")
    name = Path(config["experiment_name"] or "default")
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(f"experiment_name={name}: must stay below output_dir; give a name without .. or a leading /")


def _check_multi_task(config: Config) -> None:
    """Raises ConfigError if an option of training on several tasks is wrong, or there is only one task."""
    wanted = {"alternate": bool | None, "target_weight": float | None}
    for key, annotation in wanted.items():
        value = config["multi_task"].get(key)
        if not fits(value, annotation):
            raise ConfigError(f"multi_task.{key}={value!r}: want {type_name(annotation)}")
        if value is not None and value is not False and not auxiliary_keys(config):
            raise ConfigError(
                f"multi_task.{key}={value}: there is no auxiliary task; add auxiliary=..., or leave it out"
            )
    weight = config["multi_task"].get("target_weight")
    if weight is not None and weight < 0:
        raise ConfigError(f"multi_task.target_weight={weight}: must not be negative")
    if not fits(config["dense_run"].get("auxiliary"), bool | None):
        raise ConfigError(f"dense_run.auxiliary={config['dense_run']['auxiliary']!r}: want true, false or null")


def _check_taken(config: Config, given: Collection[str]) -> None:
    """Raises ConfigError if the user set something for a method that does not take it."""
    method, name = config["method"], config["choices"]["method"]
    set_by_user = {option.partition(".")[0] for option in given}
    for key in HANDED_TO_METHOD:
        if key in method or key not in set_by_user:
            continue
        own = ", ".join(f"method.{option}" for option in method if option not in ("_target_", *NOT_IN_HASH))
        if key == "sparsity":
            raise ConfigError(
                f"sparsity={config[key]}: method={name} has no target, it finds its sparsity itself; leave sparsity "
                f"out and steer it with {own or 'its class'}"
            )
        raise ConfigError(f"{key}={config['choices'][key]}: method={name} takes no {key}; leave it out")


FORMAT = 1
"""Of a run's folder, in summary.json under `format`. A later version that writes folders which this one would misread
raises it."""


def finished_summary(folder: Path, name: str = "summary.json") -> Config | None:
    """The summary of a finished run in this folder, None if there is none. name: the file that it is in.

    Raises:
        ConfigError: it is damaged, no summary, or of a later version.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of the encoding
        raise ConfigError(f"{path}: is damaged ({error}); run it again with force=true") from error
    if not isinstance(summary, dict) or (name == "summary.json" and "headline" not in summary):
        raise ConfigError(f"{path}: is no summary of pruneexp; give the folder of a run")
    found = summary.get("format", FORMAT)
    if not isinstance(found, int) or found > FORMAT:
        raise ConfigError(
            f"{path}: was written by a later pruneexp (format {found}, this one reads {FORMAT}); install that version"
        )
    return summary


def merged(config: Config, changes: Config) -> Config:
    """A copy of `config` with `changes` laid over it, dict by dict; a null in `changes` changes nothing."""
    result = copy.deepcopy(config)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is not None:
            result[key] = copy.deepcopy(value)
    return result


def _without(changes: Config, given: Collection[str], path: str = "") -> Config:
    """`changes` without the options that the user set."""
    kept = {}
    for key, value in changes.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            kept[key] = _without(value, given, f"{name}.")
        elif name not in given:
            kept[key] = value
    return kept


def dense_config(config: Config) -> Config:
    """The config of the dense run that this run starts from: the same, without pruning, changed by `dense_run`."""
    result = _with_dense_options(config, config["dense_run"])
    result["method"] = {"_target_": DENSE}
    result["choices"] = {**result["choices"], "method": "dense"}
    return {**result, "sparsity": None, "dense": "none", "distillation": None}


def _with_dense_options(config: Config, dense_run: Config, given: Collection[str] = ()) -> Config:
    """The config with the options of `dense_run`; without auxiliary tasks if they are off there and not `given`."""
    options = {**dense_run}
    off = options.pop("auxiliary", None) is False and not any(option.startswith("auxiliary") for option in given)
    result = merged(config, options)
    if off:
        result = {key: value for key, value in result.items() if key not in auxiliary_keys(config).values()}
        result["choices"] = {key: value for key, value in config["choices"].items() if not key.startswith("auxiliary")}
        result["multi_task"] = {**config["multi_task"], "alternate": False, "target_weight": None}
    return result


def auxiliary_keys(config: Config) -> dict[str, str]:
    """The auxiliary tasks: name, as in logs and in the run's folder -> the key that its options stand under.

    A name is the chosen config's, with underscores for slashes; if it is taken, a number is added.
    """
    names: dict[str, str] = {}
    for key, node in config.items():
        if re.fullmatch(AUXILIARY, key) and node:
            choice = config["choices"].get(key if key == "auxiliary" else f"auxiliary@{key}", key)
            name = re.sub(r"\W", "_", choice)
            same = [other for other in ("target", *names) if re.fullmatch(rf"{name}(_\d+)?", other)]
            names[f"{name}_{len(same) + 1}" if same else name] = key
    return names
