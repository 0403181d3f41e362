"""Every config composes and builds, wrong ones are refused in one line, and hashes stay what they were."""

import importlib
import inspect

import pytest
import yaml

from pruneexp.building import build, signature
from pruneexp.cli import CONFIGS, compose
from pruneexp.config import ConfigError, dense_config, merged, normalised
from pruneexp.naming import run_folder, run_hash
from pruneexp.schedules import Timeline

GROUPS = ("model", "dataset", "method", "pattern", "budget", "schedule", "optimizer", "logger", "distillation")
FILES = [(group, path) for group in GROUPS for path in sorted((CONFIGS / group).rglob("*.yaml"))]
TEACHER = {"task", "teacher_model"}  # arguments of a distillation that are no options
NEEDS_A_VALUE = {  # these cannot be built without something that only the user has
    "model=timm": ["model.name=resnet10t"],
}


def choice(group, path):
    return f"{group}={path.relative_to(CONFIGS / group).with_suffix('')}"


@pytest.mark.parametrize(("group", "path"), FILES, ids=[choice(group, path) for group, path in FILES])
def test_every_config_has_exactly_the_options_of_its_class(group, path):
    node = yaml.safe_load(path.read_text()) or {}
    if "_target_" not in node:
        return  # a variant of another config, which the next test builds
    for base in node.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":  # a config of the same group, whose options it adds to
            node = {**yaml.safe_load(path.with_name(f"{base}.yaml").read_text()), **node}
    node.pop("defaults", None)
    module, _, name = node.pop("_target_").rpartition(".")
    assert set(node) == set(signature(getattr(importlib.import_module(module), name))) - (
        TEACHER if group == "distillation" else set()
    )


@pytest.mark.parametrize("group", ["method", "pattern", "budget", "schedule", "optimizer", "logger"])
def test_every_config_builds(group):
    for path in (CONFIGS / group).rglob("*.yaml"):
        selected = choice(group, path)
        config = compose([selected, *NEEDS_A_VALUE.get(selected, [])])
        build(config[group], group)


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes_and_its_schedule_ends_in_time(path):
    config = compose([f"experiment={path.stem}"])
    method = build(config["method"], "method")
    build(config["optimizer"], "optimizer")
    if "schedule" in config["method"]:
        method.schedule.check(method.target, Timeline(steps_per_epoch=10, total_steps=round(10 * config["epochs"])))
    assert run_folder(config).parts[1] == path.stem


@pytest.mark.parametrize("group", ["method", "dataset", "model"])
def test_every_class_has_a_config(group):
    package = importlib.import_module(f"pruneexp.{group}s")
    targets = {yaml.safe_load(path.read_text()).get("_target_") for path in (CONFIGS / group).rglob("*.yaml")}
    base = importlib.import_module(f"pruneexp.{group}s.base")
    root = {"method": "Method", "dataset": "Dataset", "model": "Model"}[group]
    for file in next(iter(package.__path__)) and sorted(CONFIGS.parent.joinpath("pruneexp", f"{group}s").glob("*.py")):
        module = importlib.import_module(f"pruneexp.{group}s.{file.stem}") if file.stem != "__init__" else package
        for name, member in inspect.getmembers(module, inspect.isclass):
            concrete = issubclass(member, getattr(base, root)) and not inspect.isabstract(member)
            public = not name.startswith("_") and member.__module__ == module.__name__
            if concrete and public and module is not base and not member.__subclasses__():
                assert f"{module.__name__}.{name}" in targets


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sparsity=0.8",
            "sparsity=0.8: method=str has no target, it finds its sparsity itself; leave sparsity out and steer it "
            "with method.s_init, method.per_layer, method.learning_rate, method.weight_decay",
        ),
        ("schedule=linear", "schedule=linear: method=str takes no schedule; leave it out"),
        ("schedule.end=0.5", "schedule=cubic: method=str takes no schedule; leave it out"),
        ("budget=erk", "budget=erk: method=str takes no budget; leave it out"),
        ("pattern=nm", "pattern=nm: method=str takes no pattern; leave it out"),
    ],
)
def test_what_a_method_without_a_target_does_not_take_is_refused(override, message):
    with pytest.raises(ConfigError) as error:
        compose(["method=str", override])
    assert str(error.value) == message


def test_a_run_is_dense_by_its_method_and_not_by_having_no_target():
    dense, finding = (compose([f"method={method}", "dense_run.epochs=3"]) for method in ("dense", "str"))
    assert (dense["dense"], dense["epochs"]) == ("none", 3)
    assert (finding["dense"], finding["epochs"]) == ("train", 15)
    mine = normalised({**finding, "sparsity": 0.9, "method": {"_target_": "my_package.Mine"}})
    assert (mine["dense"], mine["epochs"], mine["sparsity"]) == ("train", 15, None)
    assert run_folder(finding).name.startswith("str-resnet20-digits-seed1-")
    assert run_hash(dense_config(finding)) == run_hash(dense)


def test_the_recorded_sparsity_is_the_methods():
    options = (["method=pdp"], ["method=pdp", "method.sparsity=0.5"], ["method=nm"], ["method=str"], ["method=dense"])
    assert [compose(list(option))["sparsity"] for option in options] == [0.9, 0.5, 0.5, None, None]


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"method\._target_=pruneexp\.methods\.nothing\.Here: cannot be imported"):
        build({"_target_": "pruneexp.methods.nothing.Here"}, "method")


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"schedule\.begin: is missing; Constant needs it"):
        build({"_target_": "pruneexp.schedules.Constant"}, "schedule")


def test_merged_lays_values_over_and_nulls_change_nothing():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5, "c": None}, "d": None}) == {
        "a": {"b": 5, "c": 2},
        "d": 3,
    }


def test_the_dense_run_has_its_own_length_and_no_pruning():
    dense = dense_config(compose(["dense_run.epochs=40", "dense_run.optimizer.learning_rate=0.2"]))
    assert dense["epochs"] == 40
    assert dense["optimizer"]["learning_rate"] == 0.2
    assert dense["dense"] == "none"
    assert run_folder(dense).name.startswith("dense-resnet20-digits-seed1-")


def test_the_dense_run_is_the_same_for_all_methods_and_sparsities():
    hashes = {
        run_hash(dense_config(compose([f"method={method}", f"sparsity={sparsity}"])))
        for method in ("pdp", "gmp", "random")
        for sparsity in (0.5, 0.9)
    }
    assert len(hashes) == 1
    assert hashes == {run_hash(compose(["method=dense"]))}


@pytest.mark.parametrize(
    "override",
    [
        "sparsity=0.8",
        "seed=2",
        "epochs=7",
        "method.tau=1e-4",
        "schedule.end=0.5",
        "budget=uniform",
        "exclude=[classifier]",
        "optimizer.learning_rate=0.01",
        "dense=none",
        "dense_run.epochs=3",
        "precision=bf16",
        "training.ema_decay=0.9",
    ],
)
def test_what_changes_the_result_changes_the_hash(override):
    assert run_hash(compose([override])) != run_hash(compose([]))


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=/elsewhere",
        "device=cpu",
        "compile=true",
        "logger=none",
        "force=true",
        "training.checkpoint_minutes=1",
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_hash(override):
    assert run_hash(compose([override])) == run_hash(compose([]))


def test_an_option_that_is_off_is_not_in_the_hash():
    config = compose([])
    for off in (None, False):
        assert run_hash({**config, "method": {**config["method"], "added_later": off}}) == run_hash(config)
    assert run_hash({**config, "method": {**config["method"], "added_later": True}}) != run_hash(config)


def test_a_checkpoint_enters_the_hash_by_its_content(tmp_path):
    files = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for file, content in zip(files, ("same", "same", "other"), strict=True):
        file.write_text(content)
    hashes = [run_hash(compose([f"model.checkpoint={file}"])) for file in files]
    assert hashes[0] == hashes[1] != hashes[2]
