"""Pieces of one-line error messages."""

import difflib
from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, or the error's type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def near(name: str, known: Iterable[str]) -> str:
    """What a user who wrote `name` may have meant: up to five of `known`, or all of them if there are few."""
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or (known if len(known) <= 10 else [])
    return f"near it: {', '.join(matches)}" if matches else "nothing known has a name like it"
