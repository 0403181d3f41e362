"""What a search may choose: texts such as "log(0.001, 0.1)", and the distributions of Optuna that they stand for."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruneexp.config import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FORMS = "log(low, high), uniform(low, high), int(low, high) or choice(one, another)"


def flat(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A nested config as dotted option -> value."""
    result: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{path}{key}"
        result |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return result


def distributions(space: Mapping[str, Any]) -> "dict[str, BaseDistribution]":
    """The distribution of each option of a space.

    Raises:
        ConfigError: the space is empty, or says something else than `FORMS`.
    """
    options = flat(space)
    if not options:
        raise ConfigError("search.space: is empty; name an option, as 'search.space.method.tau=log(0.001, 0.1)'")
    return {option: _distribution(option, text) for option, text in options.items()}


def _distribution(option: str, text: Any) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    form = re.fullmatch(r"\s*(log|uniform|int|choice)\((.*)\)\s*", str(text))
    if form is None:
        raise ConfigError(f"search.space.{option}={text}: want {FORMS}")
    kind, arguments = form[1], [part.strip() for part in form[2].split(",")]
    if kind == "choice":
        return CategoricalDistribution(arguments)
    try:
        low, high = (int(part) if kind == "int" else float(part) for part in arguments)
    except ValueError:
        raise ConfigError(f"search.space.{option}={text}: want two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (kind != "log" or low > 0)):
        raise ConfigError(f"search.space.{option}={text}: want low < high" + (", both positive" * (kind == "log")))
    return IntDistribution(low, high) if kind == "int" else FloatDistribution(low, high, log=kind == "log")
