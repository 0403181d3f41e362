"""The options of runs: which of them change the result, where runs differ, and what stands on a table's axis.

Options are named as on the command line of prune-run: `sparsity`, `pattern.n`, `method.tau`, `optimizer.learning_rate`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pruneexp.naming import hashed_options

Config = Mapping[str, Any]
Options = dict[str, Any]

INSIDE_METHOD = ("sparsity", "pattern", "budget", "schedule", "exclude")
"""Top-level options that a run's config repeats under its method, where they take effect."""


DASH = "-"
"""What stands where there is nothing."""


def deciding_options(config: Config) -> Options:
    """All that decides a run's result but its seed, by name; options that are off are left out, files are compared by
    their content."""
    options = flat(hashed_options({**config, "seed": None}))
    dense = config.get("dense")
    if dense == "train":
        options |= {f"dense_run.{name}": value for name, value in flat(config.get("dense_run") or {}).items()}
    if dense not in ("none", None, False):
        options["dense"] = str(dense)
    named = {}
    for name, value in options.items():
        inner = name.removeprefix("method.")
        moved = name != inner and inner.partition(".")[0] in INSIDE_METHOD
        named[(inner if moved else name).removesuffix("._target_")] = value
    return named


def flat(value: Any, name: str = "") -> Options:
    """Nested dicts under dotted names, without what is null or false; lists as they are written."""
    if isinstance(value, dict):
        parts = (flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items())
        return {key: item for part in parts for key, item in part.items()}
    if value is None or value is False:
        return {}
    return {name: str(value) if isinstance(value, list) else value}


def differing(decisions: Iterable[Options]) -> list[str]:
    """The names of the deciding options that are not the same in all, the shortest first."""
    chosen = list(decisions)
    names = {name for options in chosen for name in options}
    varying = [name for name in names if len({repr(options.get(name)) for options in chosen}) > 1]
    return sorted(varying, key=lambda name: (name.count("."), len(name), name))


def value_of(config: Config, name: str) -> Any:
    """The value that a run of this config has on the axis `name`, None where it has none.

    A group (method, pattern ...) is its choice, a pattern of groups N:M; `sparsity` is the target, and without one, of
    a run that prunes, "found". Everything else is an option, as prune-run knows it.
    """
    if name in NAMED:
        return _plain(NAMED[name](config))
    if name in config["choices"]:
        return _plain(config["choices"][name])
    return lookup(config["method"] if name.partition(".")[0] in INSIDE_METHOD else config, name)


def _plain(value: Any) -> Any:
    """The value, a list or a dict as it is written."""
    return str(value) if isinstance(value, list | dict) else value


def sparsity_of(config: Config) -> Any:
    """The target of a run; "found" where a method finds its sparsity itself, None where nothing is pruned."""
    target = config["method"].get("sparsity")
    return target if target is not None or is_dense(config) else "found"


def auxiliary_of(config: Config) -> str | None:
    """The auxiliary tasks, joined by "+"; None without any."""
    choices = config["choices"]
    names = sorted(key for key in choices if str(key).startswith("auxiliary"))
    return "+".join(str(choices[name]) for name in names if choices[name] not in ("none", None)) or None


def is_dense(config: Config) -> bool:
    """Whether such a run prunes nothing."""
    return config["choices"].get("method") == "dense"


def pattern_of(config: Config) -> str | None:
    """The pattern of a run: "unstructured", "channel", for groups of weights "1:4"; None where nothing is pruned."""
    pattern = config["method"].get("pattern")
    if not isinstance(pattern, dict):
        return None if is_dense(config) else "unstructured"
    if "n" in pattern and "m" in pattern:
        return f"{pattern['n']}:{pattern['m']}"
    return config["choices"].get("pattern")


NAMED = {
    "sparsity": sparsity_of,
    "pattern": pattern_of,
    "auxiliary": auxiliary_of,
    "experiment": lambda config: config.get("experiment_name"),
}
"""Axes that are not simply an option or a choice."""


def lookup(config: Any, name: str) -> Any:
    """The value under a dotted name, a list as it is written, None where there is none."""
    for key in name.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return _plain(config)


def text_of(name: str, value: Any) -> str:
    """A value as it stands in a table: a sparsity in percent, a dash where there is none."""
    if value is None:
        return DASH
    if name == "sparsity" and isinstance(value, int | float) and 0 <= value <= 1:
        return f"{100 * value:.4g} %"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def sort_key(value: Any) -> tuple[int, float, str]:
    """Numbers before texts, both ascending; what is absent comes first."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, value, ""
    return 2, 0.0, str(value)
