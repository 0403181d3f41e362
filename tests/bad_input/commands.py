"""The commands in this process, to save the start of each: what a shell would see of a command that ends badly."""

import sys
from pathlib import Path

import pytest

FAST = ["logger=none", "dense=none", "device=cpu", "epochs=1", "batch_size=20"]
"""Options of every case, so that one that is wrongly accepted ends soon."""

LONGEST = 400  # characters of a line that people read


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*")}


def _refused(main, folder: Path, capsys) -> str:
    before = files(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    errors = capsys.readouterr().err.strip()
    assert stop.value.code == 2, errors
    assert "\n" not in errors
    assert len(errors) < LONGEST + len(str(folder)) * 3
    assert files(folder) == before, "something half-made was left"
    return errors


def refused_run(arguments: list[str], folder: Path, monkeypatch, capsys) -> str:
    """The line in which `prune-run` refuses these arguments, in `folder`, where it leaves nothing."""
    from pruneexp import cli

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["prune-run", *FAST, *arguments])
    return _refused(cli.main, folder, capsys)


def refused_export(arguments: list[str], folder: Path, capsys) -> str:
    """The line in which `prune-export` refuses these arguments; in `folder` it leaves nothing."""
    from pruneexp.export import command

    fast = ["--runs", "2", "--batch-sizes", "1", "--device", "cpu"]
    return _refused(lambda: command.main([*arguments, *fast]), folder, capsys)


def runs(arguments: list[str], folder: Path, monkeypatch) -> None:
    """Runs `prune-run`, which must end well."""
    from pruneexp import cli

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["prune-run", *FAST, *arguments])
    cli.main()
