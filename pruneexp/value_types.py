"""Types of options as users know them: whether a value has one, and what it is called."""

import inspect
import types
import typing
from typing import Any, Union


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
