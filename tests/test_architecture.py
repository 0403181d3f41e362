"""Imports point one way, Hydra stays in the command line, and the trainer knows nobody by name."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pruneexp"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each layer may import itself where listed, and the layers above it; never those below.
LAYERS = (
    (
        "masks",
        "magnitudes",
        "selection",
        "groups",
        "gates",
        "learned_masks",
        "recomputed",
        "soft_mask",
        "cpu_kernels",
        "hard_concrete",
        "lagrangian",
        "learned_gates",
        "gate_options",
        "gated_units",
        "nesting",
        "unit_choice",
        "stages",
        "patterns",
        "budgets",
        "schedules",
        "config",
        "value_types",
        "building",
        "naming",
        "signals",
        "ema",
        "optimizers",
        "devices",
        "display",
        "locks",
        "tensor_files",
        "checksums",
        "credentials",
        "leftovers",
        "failures",
        "whole_files",
        "checkpoint_files",
        "environment",
        "processes",
        "training_settings",
    ),
    (
        "datasets",
        "models",
        "prunable",
        "tasks",
        "measure",
        "loggers",
        "surgery",
        "structured",
        "auxiliary",
        "auxiliary_masks",
    ),
    ("methods",),
    ("runs", "progress", "evaluation", "trainer"),
    ("report",),
    ("loading", "summaries", "experiment"),
    ("export", "verification"),
    ("composing", "sweeps", "cli"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def unit(path: Path) -> str:
    if path == PACKAGE / "report" / "command.py":
        return "cli"  # a command line, which may call everything
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_layer():
    assert {unit(path) for path in FILES} - {"__init__"} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    if unit(path) == "__init__":
        return
    for name in imports(path):
        if name.startswith("pruneexp."):
            imported = name.split(".")[1]
            assert RANK[imported] <= RANK[unit(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_hydra_and_omegaconf_stay_in_the_command_line(path):
    if str(path.relative_to(PACKAGE)) not in ("cli.py", "composing.py", "sweeps/sweeper.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=lambda path: path.name)
def test_methods_import_neither_each_other_nor_the_trainer(path):
    bases = {"pruneexp.methods.base", "pruneexp.methods.gated"}
    assert not {name for name in imports(path) if name.startswith("pruneexp.methods.")} - bases
    assert "pruneexp.trainer" not in imports(path)


def test_the_trainer_names_no_method():
    text = (PACKAGE / "trainer.py").read_text().lower()
    words = {"__init__", "base", "dense", "random", "str"}  # these mean something else, too
    names = {path.stem for path in (PACKAGE / "methods").glob("*.py")} - words
    assert names
    assert not [name for name in names if name in text]


LIGHT = (
    "pruneexp",
    "pruneexp.config",
    "pruneexp.cli",
    "pruneexp.export.command",
    "pruneexp.report.command",
    "hydra_plugins.pruneexp_sweeper",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_do_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
