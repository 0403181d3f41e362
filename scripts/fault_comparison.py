"""What a run leaves in its folder, and where two runs differ."""

import json
from pathlib import Path

TIMES = {"wall_seconds", "resumed_from", "examples_per_second", "start", "latency", "command", "commit"}
"""Keys of JSON files whose values are times, or say how a run came to be. (The commit becomes another one when somebody
edits a file of the repository while this goes on.)"""


def content(folder: Path) -> dict[str, object]:
    """What every file below a folder holds, times left out: path -> bytes, or parsed JSON."""
    return {name: _content(path) for name, path in files(folder).items()}


def files(folder: Path) -> dict[str, Path]:
    """Every file below a folder: path from there -> path."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def difference(found: object, expected: object) -> str:
    """Where two unequal contents begin to differ, and how, in words."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        key = next(key for key in found if found[key] != expected[key])
        return f", {key}{difference(found[key], expected[key])}"
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        place = next(place for place in range(len(found)) if found[place] != expected[place])
        return f", item {place}{difference(found[place], expected[place])}"
    if isinstance(found, bytes) and isinstance(expected, bytes):
        places = [place for place, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other]
        first = places[0] if places else min(len(found), len(expected))
        return f" from byte {first} of {len(found)} on ({len(places)} others; {len(expected)} bytes undisturbed)"
    return f": {found!r}, not {expected!r}"


def _content(path: Path) -> object:
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return value
