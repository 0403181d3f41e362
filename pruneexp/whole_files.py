"""Files that are written whole or not at all, so that a death or a full disk in between leaves the one before."""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROBE_BYTES = 2**20  # more than writers keep in their buffers


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` at the end, at once and on disk, or is removed if an exception comes.

    Raises:
        OSError: it cannot be written, with `path` as its file name, whatever the library that writes makes of that.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except Exception as error:
        _raise_if_full(temporary, path, error)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _raise_if_full(temporary: Path, path: Path, cause: Exception) -> None:
    """Raises OSError if nothing more can be written beside what is there.

    torch.save and safetensors report a full disk as errors of their own ("unexpected pos 640 vs 598"), which say
    nothing of it. So we ask again.
    """
    try:
        with temporary.open("ab") as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from cause


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows that share their keys as CSV, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
