"""From a table file and a command line to cells."""

import pytest

from pruneexp.config import ConfigError
from pruneexp.sweeps.tables import expand, file_name

NODE = {
    "title": "A table",
    "reference": "paper",
    "common": ["dataset=digits", "epochs=5"],
    "rows": {"PDP": ["method=pdp", "schedule=pdp_ramp"], "GMP": "method=gmp"},
    "columns": {"80 %": "sparsity=0.8", "90 %": "sparsity=0.9"},
    "seeds": [1, 2],
    "sizes": {"smoke": {"seeds": [7], "reference": None, "columns": {"half": "sparsity=0.5"}}},
}


def cells(size="full", node=NODE, **given):
    table = expand("t", node, size, {key: [str(value) for value in values] for key, values in given.items()})
    return {(cell.row.label, cell.column.label, cell.seed): " ".join(cell.words()) for cell in table.cells}


def test_a_table_is_every_row_in_every_column_with_every_seed():
    found = cells()
    assert list(found)[:3] == [("PDP", "80 %", 1), ("PDP", "80 %", 2), ("PDP", "90 %", 1)]
    assert len(found) == 8
    assert found["GMP", "90 %", 2] == "dataset=digits epochs=5 method=gmp sparsity=0.9 seed=2"
    assert found["PDP", "80 %", 1].startswith("dataset=digits epochs=5 method=pdp schedule=pdp_ramp sparsity=0.8")


def test_a_size_takes_the_place_of_keys_and_has_a_folder_of_its_own():
    table = expand("t", NODE, "smoke", {})
    assert (table.rows, table.columns, table.folder) == (["PDP", "GMP"], ["half"], "t_smoke")
    assert table.about == {"title": "A table", "source": None, "reference": None, "metric": None}
    assert [cell.seed for cell in table.cells] == [7, 7]
    assert expand("t", {**NODE, "folder": "shared"}, "full", {}).folder == "shared"


def test_an_option_of_the_columns_selects_those_with_its_value():
    assert {column for _, column, _ in cells(sparsity=["0.90"])} == {"90 %"}
    assert {row for row, _, _ in cells(method=["gmp"])} == {"GMP"}
    assert cells(sparsity=["0.8", "0.9"]) == cells()


def test_a_value_that_no_column_has_takes_their_place_under_its_own_name():
    found = cells(sparsity=[0.5])
    assert list(found) == [(row, "sparsity=0.5", seed) for row in ("PDP", "GMP") for seed in (1, 2)]
    assert found["GMP", "sparsity=0.5", 1] == "dataset=digits epochs=5 method=gmp sparsity=0.5 seed=1"
    found = cells(schedule=["cubic"])  # coupled with the method, which stays; GMP has no such choice and gets it, too
    assert next(iter(found)) == ("PDP, schedule=cubic", "80 %", 1)
    assert "method=pdp schedule=cubic" in found["PDP, schedule=cubic", "80 %", 1]
    assert "method=gmp schedule=cubic" in found["GMP", "80 %", 1]
    assert {column for _, column, _ in cells(sparsity=[0.8, 0.99])} == {"80 %", "sparsity=0.99"}


def test_other_options_replace_the_tables_and_several_values_make_rows():
    assert all("epochs=2" in words and "epochs=5" not in words for words in cells(epochs=[2]).values())
    assert list(cells(epochs=[2])) == list(cells())
    assert {row for row, _, _ in cells(epochs=[1, 2])} == {
        "PDP, epochs=1",
        "PDP, epochs=2",
        "GMP, epochs=1",
        "GMP, epochs=2",
    }
    assert {seed for _, _, seed in cells(seed=[4])} == {4}


def test_columns_can_depend_on_the_row_and_leave_cells_out():
    node = {"rows": {"a": "x=1", "b": "x=2"}, "columns": {"all": [], "only b": {"b": ["y=3", ["z=4", "w=5"]]}}}
    assert {key[:2]: words for key, words in cells(node=node).items()} == {
        ("a", "all"): "x=1",
        ("b", "all"): "x=2",
        ("b", "only b"): "x=2 y=3 z=4 w=5",
    }


def test_a_list_of_rows_is_every_combination():
    node = {"rows": [{"a": "x=1", "b": "x=2"}, {"c": "y=1", "d": ["y=2", "z=3"]}]}
    assert {row: words for (row, _, _), words in cells(node=node).items()} == {
        "a, c": "x=1 y=1",
        "a, d": "x=1 y=2 z=3",
        "b, c": "x=2 y=1",
        "b, d": "x=2 y=2 z=3",
    }


def test_a_column_withdraws_what_the_row_says():
    node = {"rows": {"a": ["x=1", "method.y=2"]}, "columns": {"b": ["~method.y"], "c": []}}
    assert list(cells(node=node).values()) == ["x=1", "x=1 method.y=2"]


def test_options_of_an_auxiliary_task_go_to_the_cells_that_have_one():
    node = {
        "rows": {"a": ["auxiliary=glue/stsb", "auxiliary.weight=2"]},
        "columns": {"with": [], "without": "auxiliary=none"},
    }
    found = cells(node=node, **{"auxiliary.path": ["p"], "auxiliary_2.path": ["q"]})
    assert found["a", "with", None] == "auxiliary=glue/stsb auxiliary.weight=2 auxiliary.path=p"
    assert found["a", "without", None] == "auxiliary=none"


def test_options_of_an_auxiliary_task_that_an_experiment_may_bring_along_stay():
    node = {"rows": {"a": "experiment=e"}, "columns": {"with": [], "without": "auxiliary=none"}}
    found = cells(node=node, **{"auxiliary.path": ["p"]})
    assert found["a", "with", None] == "experiment=e auxiliary.path=p"
    assert found["a", "without", None] == "experiment=e auxiliary=none"


def test_a_plain_grid_keeps_options_of_an_auxiliary_task_where_it_does_not_choose_none():
    def words(**given):
        return [" ".join(cell.words()) for cell in expand(None, None, "full", given).cells]

    assert words(**{"experiment": ["e"], "auxiliary.path": ["p"]}) == ["experiment=e auxiliary.path=p"]
    assert words(**{"auxiliary.path": ["p"]}) == ["auxiliary.path=p"]  # and Hydra says that there is no such option
    chosen = {"auxiliary": ["none", "glue/stsb"], "auxiliary.path": ["p"]}
    assert words(**chosen) == ["auxiliary=none", "auxiliary=glue/stsb auxiliary.path=p"]
    second = {"+auxiliary@auxiliary_2": ["glue/rte"], "auxiliary_2.path": ["q"]}
    assert words(**second) == ["+auxiliary@auxiliary_2=glue/rte auxiliary_2.path=q"]


def test_a_plain_grid_has_a_row_for_each_combination_but_of_seeds():
    table = expand(
        None, None, "full", {"method": ["a", "b"], "epochs": ["2"], "sparsity": ["1", "2"], "seed": ["1", "2"]}
    )
    assert table.rows == [f"method={m}, sparsity={s}" for m in "ab" for s in "12"]
    assert table.columns == [""]
    assert len(table.cells) == 8
    assert table.cells[-1].words() == ["method=b", "epochs=2", "sparsity=2", "seed=2"]


@pytest.mark.parametrize(
    ("node", "size", "message"),
    [
        (NODE, "huge", "size=huge: table=t has no such size; want one of full, smoke"),
        ({"row": {}}, "full", "table=t: row is no key of a table; those are title, source"),
        ({"rows": "method=pdp"}, "full", "table=t: rows='method=pdp' has a wrong type"),
        ({"rows": {"a": "method"}}, "full", "table=t: 'method' is no override; want text like sparsity=0.9"),
        ({"rows": {}}, "full", "table=t: has no cells; it needs rows and columns"),
        ({"rows": {"a": 3}}, "full", "table=t: 3 is no override"),
    ],
)
def test_what_is_no_table_is_refused(node, size, message):
    with pytest.raises(ConfigError) as error:
        expand("t", node, size, {})
    assert message in str(error.value)


def test_the_sweep_file_has_the_tables_name_unless_the_command_line_changes_cells():
    def name(size="full", **given):
        return file_name(expand("t", NODE, size, given), NODE, given)

    assert name() == "t"
    assert name("smoke") == "t-smoke"
    assert name(output_dir=["x"], **{"dataset.root": ["/data"]}) == "t"
    assert name(sparsity=["0.9", "0.80"]) == "t"
    other = name(seed=["1"])
    assert other.startswith("t-") and len(other) == 10
    assert other not in (name(seed=["2"]), "t-smoke")
    assert file_name(expand(None, None, "full", {"seed": ["1"]}), None, {"seed": ["1"]}).startswith("sweep-")
