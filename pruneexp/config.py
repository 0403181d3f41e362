"""Configurations as plain dicts: building objects from them, checking them, and the hash that names a run.

Hydra and OmegaConf end in `pruneexp.cli`; here and below a config is dicts, lists, strings and numbers.
"""

import copy
import functools
import hashlib
import importlib
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Union

from pruneexp.credentials import check_no_secret

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

LOCATION_KEYS = frozenset({"root", "workers", "download", "checkpoint_minutes"})
"""Keys that say where data lies and how often to save, at any depth; they do not change the result."""

CONTENT_KEYS = frozenset({"checkpoint", "name_or_path", "path", "tokenizer", "teacher", "run"})
"""Keys that name a file or folder whose content changes the result, at any depth."""

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


TRUSTED = ("pruneexp.", "torch.optim.")
"""Where the classes are that a config from a run's folder may name: whoever made the folder chose the names."""


def check_targets(node: Any, path: str, source: Path, trust: Collection[str] = ()) -> None:
    """Raises ConfigError if a config read back from a folder names something that is no class of ours.

    Looking a name up imports its module, and building calls it, so that a name is as good as code. source: the file.
    trust: names beyond `TRUSTED` that the user vouches for.
    """
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None and target not in trust:
        ours = str(target).startswith(TRUSTED)
        found = _locate(target, path) if ours else None
        if not (ours and inspect.isclass(found) and found.__module__.startswith(TRUSTED)):
            raise ConfigError(
                f"{source}: {path}._target_={target} is no class of pruneexp, and naming it runs its code; where you "
                f"trust it, name it yourself: prune-export --trust {target}, pruneexp.load(folder, trust=[...])"
            )
    for key, value in node.items():
        check_targets(value, f"{path}.{key}", source, trust)


def build(node: Config, path: str, **extra: Any) -> Any:
    """The object that a node describes: its `_target_` called with the other keys, nested nodes built first.

    path: where the node stands in the config ("method"), for messages. extra: further arguments, not from the config.
    A node that was read from a folder goes through `check_targets` first.

    Raises:
        ConfigError: the target does not exist, a key is unknown or missing, a value has a wrong type or is refused.
    """
    target = _locate(node.get("_target_"), path)
    arguments = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        is_node = isinstance(value, dict) and "_target_" in value
        arguments[key] = build(value, f"{path}.{key}") if is_node else value
    _check_arguments(target, arguments, path, set(extra))
    try:
        return target(**arguments, **extra)
    except ValueError as error:
        message = " ".join(str(error).split())
        names_its_key = path.rpartition(".")[2] in message.partition("=")[0]
        raise ConfigError(message if names_its_key else f"{path}: {message}") from error


def _locate(target: Any, path: str) -> Any:
    module, _, name = str(target).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}._target_={target}: cannot be imported ({error}); want package.module.Class"
        ) from None


def signature(target: Any) -> dict[str, tuple[Any, bool]]:
    """Argument name -> (annotation, whether it is required) of a class or function, `**kwargs` followed upwards."""
    owners = [owner for owner in target.__mro__ if "__init__" in vars(owner)] if inspect.isclass(target) else [None]
    found: dict[str, tuple[Any, bool]] = {}
    for owner in owners:
        function = owner.__init__ if owner else target
        if owner is object:
            break
        hints = typing.get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())[1 if owner else 0 :]
        for parameter in parameters:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                required = parameter.default is parameter.empty
                found.setdefault(parameter.name, (hints.get(parameter.name, Any), required))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _check_arguments(target: Any, arguments: Config, path: str, extra: set[str]) -> None:
    known = signature(target)
    for key, value in arguments.items():
        if key not in known:
            choices = ", ".join(sorted(set(known) - extra))
            raise ConfigError(f"{path}.{key}={value}: no such option of {target.__name__}; it takes {choices}")
        if not fits(value, known[key][0]):
            raise ConfigError(f"{path}.{key}={value!r}: want {type_name(known[key][0])}, got {type(value).__name__}")
    missing = [key for key, (_, required) in known.items() if required and key not in arguments and key not in extra]
    if missing:
        raise ConfigError(f"{path}.{missing[0]}: is missing; {target.__name__} needs it")


def fits(value: Any, annotation: Any) -> bool:  # noqa: PLR0911
    """Whether a value has a type: as isinstance, but an int is a float, a bool is no int, and lists are looked into."""
    if annotation is Any or annotation is inspect.Parameter.empty:
        return True
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if origin is list:
        return isinstance(value, list) and all(fits(item, typing.get_args(annotation)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation or type(None))


def type_name(annotation: Any) -> str:
    """A type as a user knows it: "number", "list of text or null"."""
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return " or ".join(str(option) for option in typing.get_args(annotation))
    if origin is list:
        return f"a list of {type_name(typing.get_args(annotation)[0]).removeprefix('a ')}"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


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
