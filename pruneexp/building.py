"""Objects from configs: the class that a node names, called with its options once they are checked."""

import importlib
import inspect
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pruneexp.config import Config, ConfigError
from pruneexp.value_types import fits, type_name

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
