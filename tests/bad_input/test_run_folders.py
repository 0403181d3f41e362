"""Run folders that are foreign, damaged, edited or of a later version, wherever a command takes one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import pruneexp
from pruneexp import experiment
from pruneexp.checkpoint_files import seal
from pruneexp.cli import compose
from shared.runs import dying_after

from .commands import FAST, refused_export, refused_run

SMALL = [*FAST, "dataset.max_examples=80", "method=magnitude", "sparsity=0.5"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, _ = experiment.run(compose([*SMALL, f"output_dir={tmp_path_factory.mktemp('runs')}"]))
    return folder


def edit_json(name, **changes):
    def edit(run):
        path = run / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_config(**changes):
    def edit(run):
        path = run / "config.yaml"
        config = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            group, _, option = key.partition("__")
            config[group] = {**config[group], option: value} if option else value
        path.write_text(yaml.safe_dump(config))

    return edit


def flip(name, place=-9):
    """Damage: one bit of one byte."""

    def damage(run):
        content = bytearray((run / name).read_bytes())
        content[place] ^= 1
        (run / name).write_bytes(content)

    return damage


def write(name, content):
    return lambda run: (run / name).write_text(content)


def remove(name):
    return lambda run: (run / name).unlink()


DAMAGE = {
    "a folder of something else": (lambda run: [path.unlink() for path in run.iterdir()], "no finished run"),
    "a summary of something else": (write("summary.json", '{"accuracy": 1}'), "is no summary of pruneexp"),
    "a summary that is a list": (write("summary.json", "[1]"), "is no summary of pruneexp"),
    "a summary that ends early": (write("summary.json", '{"headline": '), "summary.json: is damaged"),
    "a later version": (edit_json("summary.json", format=2), "was written by a later pruneexp (format 2, this one"),
    "no summary": (remove("summary.json"), "no finished run (it has no summary.json)"),
    "no weights": (remove("model.safetensors"), "model.safetensors"),
    "a bit of the weights": (flip("model.safetensors"), "model.safetensors: is damaged, its checksum"),
    "weights of another run": (
        lambda run: save_file({"conv1.weight": torch.zeros(16, 1, 3, 3)}, run / "model.safetensors"),
        "model.safetensors: is damaged, its checksum",
    ),
}

READ_BACK = {
    "no config": (remove("config.yaml"), "config.yaml is damaged"),
    "a config that is no YAML": (write("config.yaml", "a: ["), "config.yaml is damaged"),
    "a config that is a word": (write("config.yaml", "hello"), "config.yaml is damaged"),
    "a config with a Python object": (write("config.yaml", "a: !!python/object/apply:os.getcwd []"), "is damaged"),
    "an edited depth": (edit_config(model__depth=32), "config.yaml: was edited after the run was finished"),
    "an edited seed": (edit_config(seed=9), "config.yaml: was edited after the run was finished"),
    "another model": (
        edit_config(model={"_target_": "pruneexp.models.bert_tiny.BertTiny"}),
        "config.yaml: was edited after the run was finished",
    ),
}


def damaged(finished, folder, damage):
    shutil.copytree(finished, folder)
    damage(folder)
    return folder


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_dense_run_is_refused(case, finished, tmp_path, monkeypatch, capsys):
    damage, message = DAMAGE[case]
    damaged(finished, tmp_path / "dense", damage)
    line = refused_run([*SMALL, "dense=dense"], tmp_path, monkeypatch, capsys)
    assert message.replace("no finished run (it has no summary.json)", "no finished run") in line or (
        "dense=dense: want train, pretrained, none, or the folder of a finished run" in line
    )
    assert "dense" in line


@pytest.mark.parametrize("case", [*DAMAGE, *READ_BACK])
def test_a_damaged_teacher_is_refused(case, finished, tmp_path, monkeypatch, capsys):
    damage, message = (DAMAGE | READ_BACK)[case]
    damaged(finished, tmp_path / "teacher", damage)
    options = [*SMALL, "distillation=logits", "distillation.teacher=teacher"]
    line = refused_run(options, tmp_path, monkeypatch, capsys)
    assert message in line
    assert "distillation.teacher=teacher: " in line


@pytest.mark.parametrize("case", [*DAMAGE, *READ_BACK])
def test_a_damaged_run_is_not_exported_and_not_loaded(case, finished, tmp_path, capsys):
    damage, message = (DAMAGE | READ_BACK)[case]
    folder = damaged(finished, tmp_path / "run", damage)
    assert message in refused_export([str(folder)], tmp_path, capsys)
    with pytest.raises(ValueError) as error:
        pruneexp.load(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    assert "nowhere: no such folder" in refused_export([str(tmp_path / "nowhere")], tmp_path, capsys)
    assert "dense=nowhere: want train" in refused_run(["dense=nowhere"], tmp_path, monkeypatch, capsys)
    for option in ("distillation=logits distillation.teacher", "budget=of_run budget.run"):
        line = refused_run([*SMALL, *f"{option}=nowhere".split()], tmp_path, monkeypatch, capsys)
        assert f"{option.split()[1]}=nowhere" in line
    with pytest.raises(ValueError, match="nowhere: no finished run"):
        pruneexp.load(tmp_path / "nowhere")


MASKS = {
    "no masks": (remove("masks.safetensors"), "want the folder of a finished run with masks.safetensors"),
    "masks that are no tensors": (write("masks.safetensors", "x" * 50), "masks.safetensors is damaged"),
    "masks of another model": (
        lambda run: save_file({"a.weight": torch.ones(3, dtype=torch.bool)}, run / "masks.safetensors"),
        "its masks are of none of the prunable layers",
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_budget_of_a_damaged_run_is_refused(case, finished, tmp_path, monkeypatch, capsys):
    damage, message = MASKS[case]
    damaged(finished, tmp_path / "other", damage)
    assert message in refused_run([*SMALL, "budget=of_run", "budget.run=other"], tmp_path, monkeypatch, capsys)


def test_masks_with_a_flipped_bit_are_not_exported(finished, tmp_path, capsys):
    folder = damaged(finished, tmp_path / "run", flip("masks.safetensors"))
    assert "masks.safetensors: is damaged, its checksum" in refused_export([str(folder)], tmp_path, capsys)


def test_every_single_byte_of_the_weights_is_watched(finished, tmp_path):
    """A .safetensors file has no checksum of its own: nearly any byte can change and the file still loads."""
    content = (finished / "model.safetensors").read_bytes()
    for place in range(0, len(content), len(content) // 50):
        folder = damaged(finished, tmp_path / str(place), flip("model.safetensors", place))
        with pytest.raises(ValueError, match="is damaged, its checksum"):
            pruneexp.load(folder)


def test_the_finished_run_that_a_command_finds_is_read_with_the_same_care(finished, tmp_path, monkeypatch, capsys):
    root = tmp_path / "outputs"
    shutil.copytree(finished.parents[1], root)
    (run,) = root.glob("default/*")
    for name, message in ((DAMAGE[case]) for case in ("a summary that ends early", "a later version")):
        shutil.copy(finished / "summary.json", run / "summary.json")
        name(run)
        assert message in refused_run(SMALL, tmp_path, monkeypatch, capsys)


def test_moved_data_may_be_named_in_config_yaml(finished, tmp_path):
    folder = damaged(finished, tmp_path / "run", edit_config(output_dir="/elsewhere", device="cuda"))
    assert pruneexp.load(folder)


CHECKPOINTS = {
    "another run's": ({"run": "pdp-resnet20-digits-s0.5-seed7-00000000"}, "belongs to the run pdp-resnet20-digits"),
    "a later version's": ({"format": 2}, "was written by a later pruneexp (format 2, this one reads 1)"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_of_another_run_or_version_is_refused(case, tmp_path, monkeypatch, capsys):
    changes, message = CHECKPOINTS[case]
    with dying_after():
        experiment.run(compose([*SMALL, f"output_dir={tmp_path / 'outputs'}"]))
    (path,) = Path(tmp_path).glob("outputs/default/*/checkpoint.pt")
    torch.save(torch.load(path, weights_only=True) | changes, path)
    seal(path)
    line = refused_run([*SMALL], tmp_path, monkeypatch, capsys)
    assert message in line
    assert "checkpoint.pt: " in line
    assert "force=true" in line


def test_what_is_left_of_the_masks_is_what_was_saved(finished):
    """The copies above are of a run that is sound itself."""
    masks, weights = (load_file(finished / f"{name}.safetensors") for name in ("masks", "model"))
    assert all(not weights[name][~mask].any() for name, mask in masks.items())
