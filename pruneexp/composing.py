"""From a command line to a plain config, through Hydra; and what is wrong with one, in a line."""

import difflib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pruneexp.config import Config, normalised

HERE = Path(__file__).resolve().parent
CONFIGS = HERE / "configs" if (HERE / "configs").is_dir() else HERE.parent / "configs"

OF_SWEEPS = ("table", "size", "sweep", "search")
"""Top-level keys that make the runs of a sweep, and are no part of any."""


def to_config(composed: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """The composed config as plain, complete, normalised dicts; `choices` holds the chosen option of each group."""
    config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    config = {key: value for key, value in config.items() if key not in OF_SWEEPS}
    kept = {
        group: str(choice)
        for group, choice in choices.items()
        if choice and not group.startswith("hydra") and group not in OF_SWEEPS
    }
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    return normalised({**config, "choices": kept}, given)


def compose(overrides: list[str]) -> Config:
    """The config that `prune-run <overrides>` would run, for scripts and tests."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("run", overrides=overrides, return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    with open_dict(composed):
        del composed["hydra"]
    return to_config(composed, choices, overrides)


def deferred(word: str) -> str:
    """`a.b=value` as a sweep over this one value, which Hydra leaves to the runs; any other word as it is.

    Before a sweep Hydra composes one config of all options with a single value, and fails where the default choice has
    no such option.
    """
    key, _, value = word.partition("=")
    if "." not in key or key.lstrip("+~").partition(".")[0] in ("hydra", *OF_SWEEPS):
        return word
    try:
        given, wrapped = OverridesParser.create().parse_overrides([word, f"{key}=choice({value})"])
    except OverrideParseException:
        return word
    return word if given.is_sweep_override() or not wrapped.is_discrete_sweep() else f"{key}=choice({value})"


def typed(word: str) -> str:
    """The word that `deferred` came from."""
    return re.sub(r"=choice\((.*)\)$", r"=\1", word, flags=re.DOTALL)


def choices() -> dict[str, set[str]]:
    """The options of each group, from our configs and those of --config-dir."""
    folders = [CONFIGS, *(Path(value) for key, value in pairwise(sys.argv[1:]) if key in ("--config-dir", "-cd"))]
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/**/*.yaml"):
            group, *rest = file.relative_to(folder).with_suffix("").parts
            if group == "hydra":
                group, *rest = "/".join([group, *rest[:-1]]), rest[-1]
            if rest[-1].startswith("_"):
                continue  # a part that other files of the group are made of
            found.setdefault(group, set()).add("/".join(rest))
    return found


def config_message(error: Exception) -> str:
    """One line that names key, value and remedy."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.partition("/")
        if group == "hydra":
            group, _, choice = error.missing_cfg_file.rpartition("/")
            if choice.startswith(("joblib", "submitit")):
                return f"{group}={choice}: is not installed; pip install 'pruneexp[sweeps]'"
        return f"{group}={choice}: there is no such {group}; " + _suggestion(choice, choices().get(group, set()))
    message = str(error)
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", message)
    if unknown:
        key = unknown.group(1) or unknown.group(2)
        return f"{key}: there is no such option; " + _suggestion(key, [*_known_keys(), *choices()])
    if isinstance(error, OmegaConfBaseException) and error.full_key:  # an unknown interpolation, a missing value
        return f"{error.full_key}: {message.splitlines()[0]}; give it a value"
    return " ".join(message.split())


MANY = 40
"""More names than this are no help in a message."""


def _suggestion(wrong: str, options: Collection[str]) -> str:
    close = difflib.get_close_matches(wrong, sorted(options), n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not options:
        return "prune-run --help lists what there is"
    if len(options) > MANY:
        return "the same command with --cfg job, and without this option, shows all there are"
    return f"want one of {', '.join(sorted(options))}"


def _known_keys() -> list[str]:
    """The dotted names of all options of the default config."""

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        return [key for name, value in node.items() for key in walk(value, f"{path}.{name}" if path else str(name))]

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("run")
    return walk(OmegaConf.to_container(composed, resolve=False), "")
