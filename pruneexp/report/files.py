"""Writing a report's files."""

from pathlib import Path

from pruneexp.whole_files import replacing


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
