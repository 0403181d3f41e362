"""The tables that come with the package find the papers' numbers, each cell the one of its own table or figure."""

import pytest
import yaml

from pruneexp.cli import CONFIGS, compose
from pruneexp.report.options import value_of
from pruneexp.report.references import PART_OF_THE_DATA, load_references, matching
from pruneexp.sweeps.tables import expand

BUNDLED = load_references()
NAMES = {name for one in BUNDLED for name in one.where} | set(PART_OF_THE_DATA)

TABLES = {
    "task_transfer_table1": [["79.2", "68.4", "76.96", "79.7"], ["0.868", "0.23", "0.8527", "0.871"]],
    "task_transfer_table2": [["79.2", "79.7", "83.09", "83.82"], ["0.868", "0.871", "0.861", "0.8751"]],
    "task_transfer_table5": [
        ["83.48", "79.2", "85.78", "83.82", "85.29"],
        ["0.901", "0.868", "0.877", "0.875", "0.873"],
    ],
    "task_transfer_figure2": [
        ["87.25", "81.55", "79.57", "83.07", "85.42"],
        ["76.32", "75.45", "79.86", "77.70", "79.14"],
    ],
    "task_transfer_figure3": [
        ["85.0", "79.2", "82.40", "80.61", "83.82"],
        ["0.901", "0.868", "0.870", "0.871", "0.875"],
    ],
    "task_transfer_figure4": [
        ["87.25", "87.47", "87.58"],
        ["87.25", "85.28", "87.37"],
        ["87.25", "83.08", "85.11"],
        ["87.25", "81.54", "85.42"],
        ["87.25", "75.38", "80.49"],
    ],
    "task_transfer_figure5": [
        ["87.75", "84.80", "83.58", "81.86", "79.90", "73.53"],
        ["82.11", "79.41", "78.19", "75.98", "74.76", "71.81"],
        ["74.76", "73.77", "73.77", "70.83", "68.38", "68.14"],
        [None] * 6,  # 5 % is in figure 1 only, as changes
    ],
    "pdp_imagenet": [
        [None, "77.01", "71.95", None],  # dense, as STR reports it
        [None, "73.91", None, None],
        [None, None, "68.2", None],
    ],
    "pdp_bert": [["84.5", "91.4"], [None, None], ["80.1", "89.7"], ["> 83.1", None]],
}


@pytest.mark.parametrize("name", TABLES)
def test_each_cell_finds_the_number_of_the_paper(name):
    node = yaml.safe_load((CONFIGS / "table" / f"{name}.yaml").read_text())
    table = expand(name, node, "full", {"seed": ["1"]})
    found = {}
    for cell in table.cells:
        words = [word for word in cell.words() if not word.startswith("~")]
        config = compose(words)
        context = {name: value_of(config, name) for name in NAMES}
        metric = "pearson" if config["choices"]["dataset"] == "glue/stsb" else "accuracy"
        fitting = sorted(matching(BUNDLED, context, metric), key=lambda one: not one.is_from(node["source"]))
        found[cell.row.label, cell.column.label] = fitting[0].text if fitting else None
    assert [[found[row, column] for column in table.columns] for row in table.rows] == TABLES[name]
