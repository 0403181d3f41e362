"""What every method config must do, whatever it is. A new method is covered by having a config."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pruneexp
from pruneexp import experiment
from pruneexp.cli import CONFIGS, compose
from pruneexp.runs import Run
from shared.runs import dying_after

METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))
PRUNING = [method for method in METHODS if method != "dense"]
LARGEST_UNIT = {
    "channel": 146,
    "cofi": 145,
    "task_transfer": 145,
}  # weights; where a target can only be met in steps of whole units
STEERED = {"soft_movement": ["optimizer=adamw", "method.score_learning_rate=1"]}  # so that 18 steps are enough
SMALL = ["dataset.max_examples=240", "batch_size=40", "epochs=3", "dense=none", "logger=none"]


def run(method: str, folder: Path, *overrides: str) -> tuple[Path, dict]:
    options = [*SMALL, *STEERED.get(method, []), *overrides]
    return experiment.run(compose([f"method={method}", f"output_dir={folder}", *options]))


def target(method: str) -> float | None:
    """None: the method finds its sparsity itself."""
    return compose([f"method={method}"])["method"].get("sparsity")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One finished run of each method, trained when first asked for."""
    runs = {}

    def get(method):
        if method not in runs:
            runs[method] = run(method, tmp_path_factory.mktemp(method))
        return runs[method]

    return get


@pytest.mark.parametrize("method", PRUNING)
def test_reaches_its_target_to_within_one_weight_or_prunes_without_one(method, finished):
    folder, summary = finished(method)
    prunable = summary["params"]["prunable"]
    weights, masks = load_file(folder / "model.safetensors"), load_file(folder / "masks.safetensors")
    pruned = sum(int((~mask.expand_as(weights[name])).sum()) for name, mask in masks.items())
    assert summary["sparsity"]["target"] == target(method)
    assert summary["sparsity"]["prunable"] * prunable == pytest.approx(pruned)
    if target(method) is None:
        assert 0.05 < summary["sparsity"]["prunable"] < 1
    else:
        assert abs(pruned - target(method) * prunable) <= LARGEST_UNIT.get(method, 1)


@pytest.mark.parametrize("method", PRUNING)
def test_pruned_weights_are_exactly_zero_in_the_saved_file(method, finished):
    folder, _ = finished(method)
    weights, masks = load_file(folder / "model.safetensors"), load_file(folder / "masks.safetensors")
    for name, mask in masks.items():
        assert not weights[name][~mask.expand_as(weights[name])].any()


@pytest.mark.parametrize("method", METHODS)
def test_saved_keys_are_those_of_the_dense_model(method, finished):
    folder, _ = finished(method)
    dense, _ = finished("dense")
    shapes = [
        {name: tensor.shape for name, tensor in load_file(at / "model.safetensors").items()} for at in (folder, dense)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_model_loads_back(method, finished):
    folder, summary = finished(method)
    model = pruneexp.load(folder)
    nonzero = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert nonzero == summary["params"]["nonzero"]
    assert not model.training


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_twice_is_bitwise_and_another_is_not(method, finished, tmp_path):
    folder, _ = finished(method)
    again, _ = run(method, tmp_path)
    other, _ = run(method, tmp_path, "seed=2")
    weights = [(at / "model.safetensors").read_bytes() for at in (folder, again, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("stop_after_saves", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_resumes_bitwise(method, stop_after_saves, finished, tmp_path):
    folder, summary = finished(method)
    with dying_after(stop_after_saves):
        run(method, tmp_path)
    resumed, resumed_summary = run(method, tmp_path)
    assert resumed_summary["resumed_from"] == stop_after_saves * 6
    for name in ("model.safetensors", "masks.safetensors"):
        assert (resumed / name).read_bytes() == (folder / name).read_bytes()
    steady = [{k: v for k, v in row.items() if k != "examples_per_second"} for row in Run(folder, {}, None).rows()]
    again = [{k: v for k, v in row.items() if k != "examples_per_second"} for row in Run(resumed, {}, None).rows()]
    assert steady == again
    volatile = ("wall_seconds", "resumed_from")
    assert {k: v for k, v in summary.items() if k not in volatile} == {
        k: v for k, v in resumed_summary.items() if k not in volatile
    }
    assert not (resumed / "checkpoint.pt").exists()


@pytest.mark.parametrize("method", PRUNING)
def test_finalize_leaves_the_output_of_the_hard_masks_unchanged(method, tmp_path, monkeypatch):
    outputs = {}
    finish = experiment.Trainer._finish

    def compare(self):
        self.model.eval()
        inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), self.method.hardened():
            outputs["before"] = self.model(inputs)
        masks = finish(self)
        with torch.no_grad():
            outputs["after"] = self.model.eval()(inputs)
        return masks

    monkeypatch.setattr(experiment.Trainer, "_finish", compare)
    run(method, tmp_path)
    assert torch.equal(outputs["before"], outputs["after"])


@pytest.mark.parametrize("method", PRUNING)
def test_the_run_folder_is_complete_and_consistent(method, finished):
    folder, summary = finished(method)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("wandb")}
    assert names == {
        "config.yaml",
        "meta.json",
        "metrics.jsonl",
        "model.safetensors",
        "masks.safetensors",
        "layers.csv",
        "accuracy_vs_sparsity.png",
        "summary.json",
    }
    assert json.loads((folder / "summary.json").read_text()) == summary
    weights = load_file(folder / "model.safetensors")
    with (folder / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    for layer in layers:
        zeros = int((weights[layer["name"]] == 0).sum())
        assert int(layer["zeros"]) == zeros
    sparsities = [row["sparsity/prunable"] for row in Run(folder, {}, None).rows()]
    if target(method) is not None:
        drop = max(earlier - later for earlier, later in pairwise(sparsities))
        assert drop * summary["params"]["prunable"] <= LARGEST_UNIT.get(method, 0)
    assert sparsities[-1] == pytest.approx(summary["sparsity"]["prunable"], abs=1e-4)


def test_a_finished_run_is_not_trained_again(finished, monkeypatch, tmp_path):
    folder, summary = run("magnitude", tmp_path)
    monkeypatch.setattr(experiment, "_train", lambda *args: pytest.fail("trained again"))
    assert run("magnitude", tmp_path) == (folder, summary)


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path, monkeypatch):
    kept = {}
    save = Run.save

    def keep(self, state):
        save(self, state)
        kept["state"] = torch.load(self.folder / "checkpoint.pt", weights_only=True)

    monkeypatch.setattr(Run, "save", keep)
    run("pdp", tmp_path)
    assert kept["state"]["step"] == 18


RANKING = ("magnitude", "gmp", "random", "pdp", "movement")
PATTERNS = sorted(path.stem for path in (CONFIGS / "pattern").glob("*.yaml"))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", RANKING)
def test_every_method_that_ranks_takes_every_pattern(method, pattern, tmp_path):
    overrides = ["epochs=1", f"pattern={pattern}", *([] if pattern == "nm" else ["sparsity=0.5"])]
    if pattern == "structured":  # what is part of something else cannot be ranked against it
        overrides.append("pattern.units=[heads,ffn]")
    if pattern in ("transformer", "block"):
        sizes = ["hidden_size=16", "num_layers=2", "num_heads=4", "ffn_size=32", "vocab_size=300"]
        overrides += ["model=bert_tiny", "dataset=text_embedded", *(f"model.{size}" for size in sizes)]
    folder, summary = run(method, tmp_path, *overrides)
    # channels of a small network, and heads beside FFN units, come in steps of a hundredth
    assert summary["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.012)
    weights, masks = load_file(folder / "model.safetensors"), load_file(folder / "masks.safetensors")
    assert all(not weights[name][~mask.expand_as(weights[name])].any() for name, mask in masks.items())
