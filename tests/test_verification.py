"""A summary is recomputed from the saved files; a number that was tampered with, and damage, are found."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.report.command import main as prune_report
from pruneexp.verification.checks import UNCHECKED
from pruneexp.verification.command import main
from pruneexp.verification.verify import verify

SMALL = ["epochs=2", "batch_size=40", "logger=none", "device=cpu"]
IMAGES = ["dataset.max_examples=120"]
SIZES = [f"model.{size}" for size in ("hidden_size=16", "num_layers=2", "num_heads=2", "ffn_size=32", "vocab_size=300")]
TEXTS = ["model=bert_tiny", *SIZES, "dataset=text_embedded", "dataset.max_examples=80", "dataset.max_length=24"]

KINDS = {
    "hard masks": [*IMAGES, "method=gmp", "dense=none"],
    "soft masks from a dense run": [*IMAGES, "method=pdp", "dense_run.epochs=1"],
    "learned thresholds": [*IMAGES, "method=str", "dense=none"],
    "dense": [*IMAGES, "method=dense"],
    "depthwise convolutions": [*IMAGES, "model=mobilenet_v2", "method=magnitude", "dense=none", "epochs=1"],
    "a transformer with gates": [*TEXTS, "method=cofi", "dense=none"],
    "two tasks": [
        *(*TEXTS, "method=magnitude", "dense=none", "auxiliary=text_embedded", "auxiliary.label=module"),
        *("auxiliary.max_examples=60", "auxiliary.max_length=24", "auxiliary.batch_size=20"),
    ],
    "two masks": [
        *(*TEXTS, "method=task_transfer", "dense=none", "auxiliary=text_embedded", "auxiliary.label=module"),
        *("auxiliary.max_examples=60", "auxiliary.max_length=24"),
    ],
    "two tasks of images": [*IMAGES, "method=gmp", "dense=none", "auxiliary=digits", "auxiliary.max_examples=60"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = {}

    def get(kind):
        if kind not in runs:
            root = tmp_path_factory.mktemp("runs")
            runs[kind], _ = experiment.run(compose([*SMALL, *KINDS[kind], f"output_dir={root}"]))
        return runs[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_a_summary_is_found_again(kind, finished):
    result = verify(finished(kind))
    assert not result.differences
    assert result.unchecked == []
    keys = {check.key for check in result.checks}
    assert {"params.nonzero", "sparsity.total", "macs.effective", "size_bytes.compressed", "test.loss"} <= keys
    assert ("dense.value" in keys) == (kind == "soft masks from a dense run")


def numbers(value, path=()):
    """The paths of all numbers in nested dicts."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in numbers(item, (*path, key))]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_every_number_that_is_changed_a_little_is_reported(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished("two tasks of images"), folder)
    original = json.loads((folder / "summary.json").read_text())
    changed = [path for path in numbers(original) if path[0] not in UNCHECKED]
    assert len(changed) > 30
    tampered = json.loads(json.dumps(original))
    for path in changed:
        place = tampered
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] *= 1.01
        place[path[-1]] += 0.01
    (folder / "summary.json").write_text(json.dumps(tampered))
    assert {check.key for check in verify(folder).differences} == {".".join(path) for path in changed}


def test_a_weight_that_is_not_what_it_was_is_reported(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished("hard masks"), folder)
    weights, masks = load_file(folder / "model.safetensors"), load_file(folder / "masks.safetensors")
    name = "layer1.0.conv1.weight"
    place = (~masks[name]).nonzero()[0].tolist()
    weights[name][tuple(place)] = 0.5
    save_file(weights, folder / "model.safetensors")
    assert main([folder]) == 1
    output = capsys.readouterr().out
    assert "sha256.model.safetensors: the file has another checksum" in output
    assert f"masks: weights are not zero where the masks prune: {name}" in output
    assert "params.nonzero: differs" in output
    assert f"layers.csv {name}: another number of zeros" in output


def test_a_mask_of_an_auxiliary_task_that_is_not_what_it_was_is_reported(finished, tmp_path):
    folder, file = tmp_path / "run", "auxiliary_masks.safetensors"
    shutil.copytree(finished("two masks"), folder)
    task = "auxiliary.text_embedded.mask"
    reported = json.loads((folder / "summary.json").read_text())["auxiliary"]["text_embedded"]["mask"]
    masks = load_file(folder / file)
    name = next(name for name, mask in masks.items() if mask.any())
    weight = load_file(folder / "model.safetensors")[name.removeprefix("text_embedded.")]
    lost = int(masks[name].expand_as(weight).sum())
    save_file(masks | {name: torch.zeros_like(masks[name])}, folder / file)
    found = {check.key: check for check in verify(folder).differences}
    assert {f"sha256.{file}", f"{task}.kept", f"{task}.sparsity"} <= found.keys()
    assert found.keys() <= {f"sha256.{file}", f"{task}.kept", f"{task}.sparsity", f"{task}.shared"}
    assert found[f"{task}.kept"].recomputed == reported["kept"] - lost
    (folder / file).unlink()
    assert f"{task}.own" in {check.key for check in verify(folder).differences}


@pytest.mark.parametrize(("kind", "file"), [("hard masks", "masks"), ("two tasks", "heads")])
def test_a_file_that_is_gone_is_named(kind, file, finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished(kind), folder)
    (folder / f"{file}.safetensors").unlink()
    assert main([folder]) == 2
    assert f"prune-report: {folder / file}.safetensors: cannot be read" in capsys.readouterr().err


def test_an_edited_config_is_reported(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished("hard masks"), folder)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("seed: 1\n", "seed: 5\n", 1))
    assert {check.key for check in verify(folder).differences} == {"sha256.config", "seed"}


def test_the_command_exits_0_for_agreement_and_2_for_no_run(finished, tmp_path, capsys):
    def code(place):
        with pytest.raises(SystemExit) as stop:
            prune_report(["--verify", str(place)])
        return stop.value.code

    assert code(finished("hard masks").parent) == 0
    assert "0 differences; not checked: wall_seconds" in capsys.readouterr().out
    assert code(tmp_path) == 2
    assert "no finished run" in capsys.readouterr().err


def test_correlations_are_those_of_scipy():
    """Ties and all; SciPy comes with scikit-learn."""
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    from pruneexp.verification.scores import _metric

    source = np.random.default_rng(0)
    labels = source.integers(0, 6, 40).astype(float)
    predictions = labels + source.integers(-2, 3, 40)
    assert _metric("pearson", labels, predictions) == pytest.approx(pearsonr(predictions, labels).statistic)
    assert _metric("spearman", labels, predictions) == pytest.approx(spearmanr(predictions, labels).statistic)
    assert _metric("pearson", labels, np.ones(40)) == 0.0


def test_macs_of_a_transformer_are_those_of_the_closed_form():
    """n (4 L d^2 + 2 L^2 d + 2 L d f) + d^2 + d c for n layers of width d, L tokens, f units and c classes."""
    from transformers import BertConfig, BertForSequenceClassification

    from pruneexp.verification.counts import macs

    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
    network = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=4, **sizes))
    inputs = {"input_ids": torch.ones(1, 10, dtype=torch.long), "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    layers = 3 * (4 * 10 * 64 + 2 * 100 * 8 + 2 * 10 * 8 * 20)
    assert macs(network, inputs) == {"macs.dense": layers + 64 + 32, "macs.effective": layers + 64 + 32}
