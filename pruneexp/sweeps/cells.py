"""The cells of a table: what is run for each row, column and seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


def plain(key: str) -> str:
    """The name of an option without the signs that add or remove one."""
    return key.lstrip("+~")


def joined(*overrides: Mapping[str, str]) -> dict[str, str]:
    """All overrides; of several of one option the last, at the place of the first."""
    result: dict[str, tuple[str, str]] = {}
    for part in overrides:
        for key, value in part.items():
            result[plain(key)] = (key, value)
    return dict(result.values())


@dataclass(frozen=True)
class Part:
    """A row, a column, or a cell's share of it: its label, and the overrides that it stands for."""

    label: str
    overrides: dict[str, str]  # key, with a prefix like "+" if any -> value


@dataclass(frozen=True)
class Cell:
    """What is run for one row, column and seed."""

    row: Part
    column: Part
    overrides: dict[str, str] = field(default_factory=dict)  # all of them

    @property
    def seed(self) -> int | None:
        """The seed, if the cell sets one."""
        seed = self.overrides.get("seed", "")
        return int(seed) if seed.isdecimal() else None

    def label(self) -> str:
        """The cell in words."""
        seed = [f"seed {self.overrides['seed']}"] if "seed" in self.overrides else []
        return ", ".join([*filter(None, (self.row.label, self.column.label)), *seed]) or "the only run"

    def words(self) -> list[str]:
        """The overrides as on the command line."""
        return [f"{key}={value}" for key, value in self.overrides.items()]


@dataclass(frozen=True)
class Table:
    """A table with its cells. `about` holds title, source, reference and metric."""

    name: str | None
    size: str
    about: dict[str, str | None]
    folder: str | None
    cells: list[Cell]

    @property
    def rows(self) -> list[str]:
        """The labels of the rows, in order."""
        return list(dict.fromkeys(cell.row.label for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """The labels of the columns, in order."""
        return list(dict.fromkeys(cell.column.label for cell in self.cells))

    def with_overrides(self, overrides: Mapping[str, str]) -> "Table":
        """The table with more overrides in every cell."""
        cells = [replace(cell, overrides=joined(cell.overrides, overrides)) for cell in self.cells]
        return replace(self, cells=cells)
