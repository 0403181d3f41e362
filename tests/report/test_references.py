"""The papers' numbers: of the right form, as the papers have them, and beside the right runs only."""

import re

import pytest

from pruneexp.cli import CONFIGS, compose
from pruneexp.report.build import Request, make_report
from pruneexp.report.options import value_of
from pruneexp.report.references import (
    CERTAINTIES,
    FOLDER,
    PART_OF_THE_DATA,
    load_references,
    matching,
    read_references,
)

BUNDLED = load_references()
PERCENTAGES = {"accuracy", "f1", "matthews", "accuracy gained"}


def test_every_bundled_number_is_of_the_right_form():
    assert len(BUNDLED) > 200
    for one in BUNDLED:
        assert one.certainty in CERTAINTIES and one.source and one.where, one
        assert re.fullmatch(r"([<>] )?\d+(\.\d+)?( ± \d+\.\d+)?", one.text), one
        assert one.unit == ("%" if one.metric in PERCENTAGES else ""), one
        limits = {"speedup": (1, 20), "macs.effective": (1e7, 1e9)}.get(one.metric, (0, 1))
        assert limits[0] < one.value < limits[1], one
        sparsity = one.where.get("sparsity", 0.5)
        assert 0 < sparsity < 1, one


def test_no_two_numbers_of_one_table_are_for_the_same_runs():
    keys = [(one.file, one.source, one.metric, str(sorted(one.where.items(), key=str))) for one in BUNDLED]
    assert len(keys) == len(set(keys))


ELSEWHERE = {"squad", "wide_resnet22_2", "average", "DenseNet at best", "EfficientNetV2 at best", "ResNet at best"}
"""Data sets and models of papers that the package does not have."""


def test_numbers_are_for_models_data_sets_and_options_that_there_are():
    for group in ("model", "dataset", "auxiliary"):
        known = {str(path.relative_to(CONFIGS / group).with_suffix("")) for path in (CONFIGS / group).rglob("*.yaml")}
        assert {one.where[group] for one in BUNDLED if one.where.get(group)} <= known | ELSEWHERE
    assert {name for one in BUNDLED for name in one.where} == {
        *("method", "model", "dataset", "auxiliary", "pattern", "sparsity", "distillation"),
        *("model.name_or_path", "dataset.fraction", "method.coupling", "method.order", "method.transfer"),
        "share of filters pruned",  # no option of ours, so that it stands beside nothing
    }


@pytest.mark.parametrize(
    ("overrides", "metric", "text"),
    [
        (["experiment=imagenet_pdp_mobilenet_v1"], "accuracy", "68.2"),
        (["experiment=imagenet_pdp_mobilenet_v1", "dataset.max_examples=1000"], "accuracy", None),
        (["experiment=cifar10_pdp_mobilenet_v1"], "accuracy", None),
        (["experiment=bert_pdp_mnli", "sparsity=0.9"], "accuracy", "> 83.1"),
        (["experiment=bert_pdp_mnli", "sparsity=0.8"], "accuracy", None),
        (["method=sr_ste", "pattern.n=1", "pattern.m=4", "model=resnet50", "dataset=imagenet"], "accuracy", "75.9"),
        (["method=cofi", "model=bert", "dataset=glue/sst2", "sparsity=0.6"], "accuracy", "93.0"),
        (["method=cofi", "model=bert", "dataset=glue/sst2", "sparsity=0.6"], "speedup", "2.1"),
        (["method=gmp", "model=resnet50", "dataset=imagenet", "pattern=channel"], "accuracy", None),
    ],
)
def test_what_prune_run_composes_finds_its_number(overrides, metric, text):
    config = compose(overrides)
    context = {name: value_of(config, name) for one in BUNDLED for name in one.where}
    context |= {name: value_of(config, name) for name in PART_OF_THE_DATA}
    assert [one.text for one in matching(BUNDLED, context, metric)] == ([text] if text else [])


SPOT_CHECKS = [
    ("pdp", "accuracy", {"method": ["pdp", "pdp_paper"], "model": "mobilenet_v1", "sparsity": 0.866}, "68.2", "paper"),
    ("pdp", "accuracy", {"method": ["pdp", "pdp_paper"], "dataset": "glue/mnli"}, "> 83.1", "paper"),
    ("pdp", "accuracy", {"method": "best other", "model": "mobilenet_v1"}, "66.5", "derived"),
    ("idp", "accuracy", {"method": "idp", "model": "resnet18"}, "69.5", "paper"),
    ("imagenet", "accuracy", {"method": "str", "model": "resnet50", "sparsity": 0.9023}, "74.31", "release"),
    (
        "imagenet",
        "macs.effective",
        {"method": "optg", "model": "mobilenet_v1", "sparsity": 0.8},
        "124000000",
        "release",
    ),
    ("imagenet", "accuracy", {"method": "gmp"}, "73.91", "quoted"),
    ("imagenet", "accuracy", {"method": "sr_ste", "model": "resnet50", "pattern": "1:4"}, "75.9", "release"),
    ("cofi", "matthews", {"sparsity": 0.951}, "38.9", "release"),
    ("cofi", "speedup", {"dataset": "glue/rte", "sparsity": 0.962}, "12.8", "release"),
    ("bert", "f1", {"method": "soft_movement", "dataset": "glue/qqp", "sparsity": 0.97}, "85.5", "release"),
    (
        "bert",
        "accuracy",
        {"method": "obert 30 epochs", "dataset": "glue/mnli", "sparsity": 0.8},
        "84.32 ± 0.14",
        "release",
    ),
    ("cifar10", "accuracy", {"method": "tpp", "share of filters pruned": 0.95}, "85.86", "release"),
    ("cifar10", "accuracy", {"method": "static 2x", "sparsity": 0.95}, "89.7", "release"),
    ("upscale", "accuracy gained", {"model": "DenseNet at best"}, "16.9", "paper"),
]


@pytest.mark.parametrize(("file", "metric", "where", "text", "certainty"), SPOT_CHECKS)
def test_numbers_typed_a_second_time_from_the_papers_are_the_same(file, metric, where, text, certainty):
    found = [
        one
        for one in read_references(FOLDER / f"{file}.yaml")
        if one.metric == metric and all(one.where.get(name) == value for name, value in where.items())
    ]
    assert [(one.text, one.certainty) for one in found] == [(text, certainty)]


TRANSFER = {"dataset": "glue/mrpc", "auxiliary": "glue/stsb", "method.order": "auxiliary_then_target"}


@pytest.mark.parametrize(
    ("name", "where", "texts"),
    [
        ("Table 1", TRANSFER, ["68.4", "76.96", "79.7"]),
        ("Table 2", {"dataset": "glue/stsb", "method.order": "target_then_both"}, ["0.861"]),
        ("Table 5", {"dataset": "glue/mrpc", "auxiliary": "sci/rct"}, ["85.29"]),
        ("Figure 2", {"dataset": "sci/citation_intent", "auxiliary": "sci/sciie"}, ["79.86", "77.70", "79.14"]),
        ("Figure 4", {"auxiliary": "sci/citation_intent", "sparsity": 0.98}, ["80.49", "9.27"]),
        (
            "Figure 5",
            {"dataset.fraction": 0.1, "method": "task_transfer"},
            ["73.77", "73.77", "70.83", "68.38", "68.14"],
        ),
    ],
)
def test_the_tables_of_task_transfer(name, where, texts):
    found = [one for one in read_references(FOLDER / "task_transfer.yaml") if f", {name}," in one.source]
    assert [one.text for one in found if all(one.where.get(key) == value for key, value in where.items())] == texts
    assert {one.certainty for one in found} == {"figure" if name.startswith("Figure") else "paper"}


OWN = """\
paper: Doe 2020
tables:
  - name: Table 1
    certainty: paper
    metric: accuracy
    unit: "%"
    where: {model: resnet20, dataset: digits}
    axes: [method, sparsity]
    cells:
      - [pdp, 0.9, 60.5 ± 0.3]
      - [[gmp, magnitude], 0.9, "> 40"]
      - [rigl, 0.9, 66]
"""


@pytest.fixture
def table(make_run, tmp_path):
    """The table of runs beside the numbers of a file."""

    def table(text=OWN, **options):
        (tmp_path / "own.yaml").write_text(text)
        request = Request([str(tmp_path / "runs")], references=[tmp_path / "own.yaml"], bundled=False, **options)
        (made,) = make_report(request).tables
        return made

    return table


def numbers(table):
    """Cell -> the paper's text and the difference in points."""
    (metric,) = table.metrics
    shown = {}
    for place in table.places:
        reference, difference = table.reference(place, metric), table.difference(place, metric)
        shown[table.layout.text(place)] = (reference and reference.text, difference and round(100 * difference, 6))
    return shown


def test_a_users_number_stands_beside_the_runs_of_its_options(make_run, table):
    for seed, score in ((1, 0.62), (2, 0.60)):
        make_run(score, seed=seed)
        make_run(score - 0.2, seed=seed, method="gmp")
        make_run(score, seed=seed, sparsity=0.8)
    assert numbers(table()) == {
        "gmp, 80 %": (None, None),
        "gmp, 90 %": ("> 40", None),  # a bound has no difference
        "pdp, 80 %": (None, None),
        "pdp, 90 %": ("60.5 ± 0.3", 0.5),
    }


def test_rows_of_methods_that_only_papers_have(make_run, table):
    make_run(0.6)
    assert numbers(table(papers=True)) == {"pdp": ("60.5 ± 0.3", -0.5), "rigl": ("66", None)}
    assert numbers(table(papers=False)) == {"pdp": ("60.5 ± 0.3", -0.5)}


@pytest.mark.parametrize(
    "option",
    [{"dataset": "cifar10"}, {"model": "resnet32"}, {"dataset__fraction": 0.5}, {"dataset__max_examples": 100}],
    ids=str,
)
def test_other_runs_and_runs_on_part_of_the_data_have_no_number(make_run, table, option):
    make_run(0.6, **option)
    assert set(numbers(table()).values()) == {(None, None)}


def test_a_local_copy_of_a_model_is_known_by_the_name_of_its_folder(make_run, table):
    text = OWN.replace("where: {", "where: {model.name_or_path: hub/bert-base-uncased, ")
    make_run(0.6, model__name_or_path="/models/bert-base-uncased")
    make_run(0.6, model__name_or_path="/models/MiniLM")
    assert numbers(table(text)) == {"/models/MiniLM": (None, None), "/models/bert-base-uncased": ("60.5 ± 0.3", -0.5)}


def test_a_sparsity_that_was_found_is_compared_where_it_ended(make_run, table):
    text = OWN.replace("[pdp, 0.9, 60.5 ± 0.3]", "[str, 0.9, 60.5]")
    make_run(0.6, method="str", method__decay=1, found=0.899)
    make_run(0.5, method="str", method__decay=2, found=0.88)
    assert numbers(table(text)) == {"1": ("60.5", -0.5), "2": (None, None)}


def test_the_figure_that_a_table_is_of_comes_before_others(make_run):
    full = [one for one in BUNDLED if one.where.get("dataset") == "glue/mrpc" and one.where.get("method") == "dense"]
    assert {one.text for one in full if one.is_from("Dery et al. 2023, figure 3; one point of its grid")} == {"85.0"}
    assert {one.text for one in full if one.is_from("Dery et al. 2023, figure 5")} == {"87.75", "82.11", "74.76"}
    assert not any(one.is_from("figure 30") for one in full)


BAD = [
    ("", "want `paper: <author, year, title>` and `tables:`"),
    ("paper: x\ntables: {}", "want `paper: <author, year, title>` and `tables:`"),
    ("a: [", "is no YAML"),
    (OWN.replace("paper: Doe 2020", ""), "Table 1: want `paper:`, a text"),
    (OWN.replace("certainty: paper", "certainty: sure"), "Table 1: certainty=sure: want one of paper, release"),
    (OWN.replace('unit: "%"', "unit: percent"), 'Table 1: unit=percent: want "%", or leave it out'),
    (OWN.replace("metric: accuracy", "metrik: accuracy"), "Table 1: metrik: no such key"),
    (OWN.replace("axes: [method, sparsity]", "axes: [method]"), "want 1 options (method) and a value"),
    (OWN.replace("60.5 ± 0.3", "about 60"), "'about 60' is no value"),
    (OWN.replace("60.5 ± 0.3", "true"), "'True' is no value"),
    (OWN.replace("60.5 ± 0.3", "null"), "'None' is no value"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_a_file_that_is_not_of_the_form_is_named(make_run, table, text, message):
    make_run()
    with pytest.raises(ValueError) as error:
        table(text)
    assert "own.yaml" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
