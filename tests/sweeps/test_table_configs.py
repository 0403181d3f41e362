"""Every table in configs/table composes, in every size, and every cell is a valid experiment."""

import pytest
import yaml

from pruneexp.building import build
from pruneexp.cli import CONFIGS, compose
from pruneexp.config import auxiliary_keys, dense_config
from pruneexp.naming import run_folder, run_hash
from pruneexp.schedules import Timeline
from pruneexp.sweeps.tables import FULL, expand

NODES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / "table").glob("*.yaml"))}
SIZES = [(name, size) for name, node in NODES.items() for size in (FULL, *node["sizes"])]
PAPERS = {
    *("pdp_imagenet", "pdp_bert", "pdp_imagenet_nm", "pdp_imagenet_channel"),
    *("task_transfer_table1", "task_transfer_table2", "task_transfer_table5"),
    *(f"task_transfer_figure{number}" for number in (2, 3, 4, 5)),
}


def skip_without_method(name):
    if name.startswith("task_transfer") and not (CONFIGS / "method" / "task_transfer.yaml").is_file():
        pytest.skip("method=task_transfer is not there yet")


@pytest.mark.parametrize(("name", "size"), SIZES, ids=lambda value: value)
def test_every_cell_is_a_valid_experiment_and_every_pruned_one_another(name, size):
    """Seeds share all but the seed, so one of them is enough; data are not read."""
    skip_without_method(name)
    table = expand(name, NODES[name], size, {"seed": ["1"]})
    pruned = []
    for cell in table.cells:
        config = compose(cell.words())
        parts = {key: build(config[key], key) for key in ("model", "dataset", "method", "optimizer")}
        assert parts["model"].kind == parts["dataset"].kind, cell.label()
        for key in auxiliary_keys(config).values():
            node = {option: value for option, value in config[key].items() if option not in ("weight", "batch_size")}
            assert build(node, key).kind == parts["dataset"].kind, cell.label()
        if "schedule" in config["method"]:
            steps = Timeline(steps_per_epoch=10, total_steps=round(10 * config["epochs"]))
            parts["method"].schedule.check(parts["method"].target, steps)
        if config["distillation"]:
            assert config["dense"] != "none", cell.label()
        if config["sparsity"] is not None:
            pruned.append(run_folder(config))
    assert len(set(pruned)) == len(pruned) > 0


def test_the_papers_tables_are_there_each_with_a_smoke_size():
    assert set(NODES) >= PAPERS
    assert all("smoke" in node["sizes"] for node in NODES.values())
    assert all(node["title"] and node["source"] for node in NODES.values())


def test_the_dense_row_of_bert_is_the_dense_run_that_the_others_start_from():
    table = expand("pdp_bert", NODES["pdp_bert"], FULL, {"seed": ["1"]})
    configs = {(cell.row.label, cell.column.label): compose(cell.words()) for cell in table.cells}
    for task in ("MNLI", "QQP"):
        assert run_hash(configs["Dense", task]) == run_hash(dense_config(configs["PDP", task]))
        assert configs["PDP", task]["distillation"]["weight"] == 0.95
