"""The papers' numbers, from references/*.yaml and from users' own files of the same form.

A file holds tables. Each cell of one says a value, as printed, for a run with certain options:

    paper: Author et al. 2023, Title (arXiv 0000.00000)      # or in each table
    tables:
      - name: Table 2                     # where in the paper
        certainty: paper                  # a key of CERTAINTIES: how sure the numbers are
        metric: accuracy                  # as in summary.json: accuracy, f1, pearson, macs.effective, speedup ...
        unit: "%"                         # "%" if values are percentages; left out if not
        where: {model: resnet18, dataset: imagenet}      # options that all cells share
        axes: [method, sparsity]                         # options that differ, in the order of the columns below
        cells:
          - [pdp, 0.9, 69.5]              # method=pdp, sparsity=0.9: 69.5 %
          - [gmp, 0.9, 67.0 ± 0.2]        # with the standard deviation that the paper gives
          - [str, 0.9, "> 68"]            # the paper says only that it is more

Options are named as on a table's axes; a list of values stands for any of them. What is not known is left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pruneexp.report.finished import read_yaml

FOLDER = Path(__file__).resolve().parent / "references"

CERTAINTIES = {
    "paper": "read in the paper",
    "release": "from the authors' release (README, model card, issue), not the paper",
    "figure": "recovered from a figure of the paper",
    "quoted": "as another paper or page quotes it",
    "derived": "computed from numbers that the paper states",
}
"""How a number was come by, the surest first."""

SAME_SPARSITY = 0.002
"""Sparsities that differ by less are the same, where a method finds its own: a fifth of a percent."""

VALUE = re.compile(r"(?P<bound>[<>]?)\s*(?P<value>[-+]?\d+(\.\d+)?)(\s*±\s*(?P<std>\d*\.?\d+))?")
COST = "macs.effective"
TABLE_KEYS = {"paper", "name", "certainty", "metric", "unit", "where", "axes", "cells"}
PART_OF_THE_DATA = ("dataset.fraction", "dataset.max_examples")


@dataclass(frozen=True)
class Reference:
    """A number of a paper. value, std: fractions where the paper has percentages. text: as printed, with bound and
    deviation. bound: "" for the number itself, ">" or "<" where only that is known. where: the options it belongs to.
    macs: the MACs of non-zero weights that the same file gives for the same paper and options; None where it does not.
    """

    where: Mapping[str, Any]
    metric: str
    value: float
    text: str
    bound: str
    std: float | None
    unit: str
    source: str
    certainty: str
    file: Path
    macs: float | None = None

    def is_from(self, place: str) -> bool:
        """Whether it stands in the table or figure that a text names: "Figure 3" in "Dery et al. 2023, figure 3"."""
        names = re.findall(r"(?:table|figure) \d+", self.source.lower())
        return any(re.search(rf"{name}\b", place.lower()) for name in names)

    def matches(self, context: Mapping[str, Any]) -> bool:
        """Whether it belongs to runs of these options. A run on part of its data is no match, unless the paper's is."""
        whole = all(name in self.where or context.get(name) in (None, 1) for name in PART_OF_THE_DATA)
        return whole and all(_same(name, wanted, context.get(name)) for name, wanted in self.where.items())


def load_references(files: Sequence[Path] = (), *, bundled: bool = True) -> list[Reference]:
    """The numbers of these files, then those that come with the package, each file in its order.

    Raises:
        ValueError: a file is not there or not of the form above; the message names file, table and what is wrong.
    """
    every = [*files, *(sorted(FOLDER.glob("*.yaml")) if bundled else [])]
    return [reference for file in every for reference in read_references(file)]


def read_references(file: Path) -> list[Reference]:
    """The numbers of one file. Raises ValueError as `load_references`."""
    try:
        content = read_yaml(file)
    except OSError as error:
        raise ValueError(f"--references {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is no YAML: {' '.join(str(error).split())}") from error
    tables = content.get("tables") if isinstance(content, dict) else None
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{file}: want `paper: <author, year, title>` and `tables:`, a list of tables")
    found: list[tuple[str, Reference]] = []
    for number, table in enumerate(tables, 1):
        place = f"{file}: {table.get('name', f'table {number}')}"
        checked = _checked(place, {"paper": content.get("paper"), **table})
        found += [(checked["paper"], _reference(place, checked, cell, file)) for cell in checked["cells"]]
    return _with_macs(found)


def _with_macs(found: Sequence[tuple[str, Reference]]) -> list[Reference]:
    """The numbers of (paper, number), each with the MACs that its paper has for the same options."""
    macs = [(paper, one.where, one.value) for paper, one in found if one.metric == COST and not one.bound]

    def cost(paper: str, where: Mapping[str, Any]) -> float | None:
        return next((value for *options, value in macs if options == [paper, where]), None)

    return [one if one.metric == COST else replace(one, macs=cost(paper, one.where)) for paper, one in found]


def _checked(place: str, table: dict[str, Any]) -> dict[str, Any]:
    """The table, if it has what it needs."""
    unknown = set(table) - TABLE_KEYS
    if unknown:
        raise ValueError(f"{place}: {min(unknown)}: no such key; want {', '.join(sorted(TABLE_KEYS))}")
    wanted = {"paper": str, "name": str, "certainty": str, "metric": str, "axes": list, "cells": list}
    for key, kind in wanted.items():
        if not isinstance(table.get(key), kind):
            raise ValueError(f"{place}: want `{key}:`, a {'list' if kind is list else 'text'}")
    if table["certainty"] not in CERTAINTIES:
        raise ValueError(f"{place}: certainty={table['certainty']}: want one of {', '.join(CERTAINTIES)}")
    if table.get("unit", "") not in ("", "%"):
        raise ValueError(f'{place}: unit={table["unit"]}: want "%", or leave it out')
    if not isinstance(table.get("where", {}), dict):
        raise ValueError(f"{place}: want `where:`, options and values")
    for cell in table["cells"]:
        if not isinstance(cell, list) or len(cell) != len(table["axes"]) + 1:
            raise ValueError(
                f"{place}: {cell}: want {len(table['axes'])} options ({', '.join(table['axes'])}) and a value"
            )
    return table


def _reference(place: str, table: dict[str, Any], cell: list[Any], file: Path) -> Reference:
    text = str(cell[-1])
    found = VALUE.fullmatch(text.strip())
    if isinstance(cell[-1], bool) or found is None:
        raise ValueError(f'{place}: {cell}: {text!r} is no value; want a number, "> number" or "number ± deviation"')
    scale = 0.01 if table.get("unit") == "%" else 1.0
    return Reference(
        where={**table.get("where", {}), **dict(zip(table["axes"], cell[:-1], strict=True))},
        metric=table["metric"],
        value=float(found["value"]) * scale,
        text=text.strip(),
        bound=found["bound"],
        std=float(found["std"]) * scale if found["std"] else None,
        unit=table.get("unit", ""),
        source=f"{table['paper']}, {table['name']}",
        certainty=table["certainty"],
        file=file,
    )


def matching(references: Sequence[Reference], context: Mapping[str, Any], quantity: str) -> list[Reference]:
    """The numbers for runs of these options, in the files' order, within a file the surest first."""
    return [one for one in references if one.metric == quantity and one.matches(context)]


def _same(name: str, wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list):
        return any(_same(name, one, value) for one in wanted)
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return math.isclose(wanted, value, abs_tol=SAME_SPARSITY if name == "sparsity" else 1e-9)
    if name.endswith(("name_or_path", "path")) and isinstance(value, str):
        return str(wanted).rpartition("/")[2] == Path(value).name
    return wanted == value
