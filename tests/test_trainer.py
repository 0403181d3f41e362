"""The options of training, the dense start, and what happens when something breaks."""

import errno
import json

import pytest
import torch

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.config import ConfigError
from pruneexp.datasets.batches import micro_batches
from pruneexp.failures import TrainingError
from pruneexp.processes import average_gradients_
from pruneexp.runs import Run
from shared.runs import dying_after, weights

SMALL = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "dense=none", "logger=none", "device=cpu"]
TEXT = ["model=bert_tiny", "model.dropout=0.0", "dataset=text_embedded", "optimizer=sgd", "method=magnitude"]


def run(tmp_path, *overrides):
    return experiment.run(compose([f"output_dir={tmp_path}", *SMALL, *overrides]))


def test_micro_batches_cover_the_batch():
    batch = {"inputs": {"ids": torch.arange(7)}, "labels": torch.arange(7)}
    parts = list(micro_batches(batch, 3))
    assert [len(part["labels"]) for part in parts] == [3, 3, 1]
    assert torch.cat([part["inputs"]["ids"] for part in parts]).tolist() == list(range(7))


def test_accumulation_gives_the_same_weights(tmp_path):
    whole, _ = run(tmp_path, *TEXT)
    pieces, _ = run(tmp_path, *TEXT, "training.accumulate=3")
    assert whole != pieces
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(pieces)[name], atol=1e-5), name


def test_gradients_of_parameters_outside_the_model_are_averaged_over_processes():
    class Other:
        """Another process that has a gradient of 0 everywhere."""

        num_processes = 2

        def reduce(self, tensor, reduction):
            return {"mean": tensor / 2, "sum": tensor}[reduction]

    used, unused = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    used.grad = torch.tensor([2.0, -4.0])
    average_gradients_(Other(), [used, unused])
    assert used.grad.tolist() == [1.0, -2.0]
    assert unused.grad is None


def test_only_parameters_outside_the_model_are_averaged_by_the_trainer(tmp_path, monkeypatch):
    seen = {}
    train = experiment.Trainer._train_step
    monkeypatch.setattr(
        experiment.Trainer, "_train_step", lambda self, batch: (seen.update(own=list(self.own)), train(self, batch))
    )
    run(tmp_path, "method=cofi")
    assert sorted(parameter.numel() for parameter in seen["own"]) == [
        2,
        400,
    ]  # multipliers; 3 x (16 + 32 + 64) channels in blocks, 64 between
    run(tmp_path, "method=pdp")
    assert seen["own"] == []


@pytest.mark.parametrize(
    "option",
    [
        "precision=bf16",
        "training.channels_last=true",
        "training.ema_decay=0.9",
        "optimizer.clip_norm=0.1",
        "label_smoothing=0.1",
        "optimizer=adamw",
        "optimizer.schedule=step",
        "budget=erk",
        "schedule=linear",
    ],
)
def test_each_option_runs_and_changes_the_result(option, tmp_path):
    plain, _ = run(tmp_path)
    changed, summary = run(tmp_path, option)
    assert summary["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)
    same = all(torch.equal(tensor, weights(changed)[name]) for name, tensor in weights(plain).items())
    assert not same
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in weights(changed).values())


@pytest.mark.parametrize("option", ["training.ema_decay=0.9", "optimizer=adamw", "method.harden_at=0.6"])
def test_resume_is_bitwise_with(option, tmp_path):
    steady, _ = run(tmp_path / "steady", option, "epochs=4")
    with dying_after(2):
        run(tmp_path / "killed", option, "epochs=4")
    resumed, summary = run(tmp_path / "killed", option, "epochs=4")
    assert summary["resumed_from"] == 6
    assert (steady / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_the_dense_run_is_trained_once_and_pruning_starts_from_it(tmp_path):
    options = ["dense=train", "dense_run.epochs=3"]
    first, summary = run(tmp_path, *options)
    (dense,) = tmp_path.glob("default/dense-*")
    trained = (dense / "model.safetensors").stat().st_mtime_ns
    assert summary["dense"] == json.loads((dense / "summary.json").read_text())["headline"]
    rows = [json.loads(line) for line in (dense / "metrics.jsonl").read_text().splitlines()]
    start = Run(first, {}, None).rows()[0]
    assert start["step"] == 0
    assert start["validation/accuracy"] == rows[-1]["validation/accuracy"]
    run(tmp_path, *options, "sparsity=0.5")
    assert (dense / "model.safetensors").stat().st_mtime_ns == trained
    _, named = run(tmp_path, f"dense={dense}")
    assert named["dense"] == summary["dense"]


def test_pretrained_weights_are_the_dense_reference(tmp_path):
    dense, summary = run(tmp_path, "method=dense")
    checkpoint = dense / "model.safetensors"
    _, pruned = run(tmp_path, "dense=pretrained", f"model.checkpoint={checkpoint}")
    assert pruned["dense"]["value"] == summary["headline"]["value"]


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_checkpoint(tmp_path, monkeypatch):
    step = experiment.Trainer._backward

    def poisoned(self, batch):
        loss = step(self, batch)
        return loss * float("nan") if self.step == 4 else loss

    monkeypatch.setattr(experiment.Trainer, "_backward", poisoned)
    with pytest.raises(TrainingError, match="not finite at step 5 of 6; the last good checkpoint is"):
        run(tmp_path)
    (folder,) = tmp_path.glob("default/*")
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 3
    assert not (folder / "summary.json").exists()


def test_a_full_disk_keeps_the_last_checkpoint_and_other_runs(tmp_path, monkeypatch):
    finished, _ = run(tmp_path, "method=magnitude")
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    real, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half of a check")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    monkeypatch.undo()
    (folder,) = tmp_path.glob("default/pdp-*")
    assert not list(folder.glob(".*.tmp"))
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 3
    _, summary = run(tmp_path)
    assert summary["resumed_from"] == 3
    assert before == {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}


def test_a_damaged_checkpoint_is_named(tmp_path):
    with dying_after():
        run(tmp_path)
    (folder,) = tmp_path.glob("default/*")
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: is damaged.*force=true starts the run over"):
        run(tmp_path)
    _, summary = run(tmp_path, "force=true")
    assert summary["resumed_from"] is None


def test_the_test_split_is_read_after_training_only(tmp_path, monkeypatch):
    order = []
    evaluate, step = experiment.Trainer.evaluate, experiment.Trainer._train_step

    def noting(self, split):
        order.append("test" if split is self.splits.test else "validation")
        return evaluate(self, split)

    monkeypatch.setattr(experiment.Trainer, "evaluate", noting)
    monkeypatch.setattr(
        experiment.Trainer, "_train_step", lambda self, batch: (order.append("step"), step(self, batch))
    )
    run(tmp_path)
    assert order.count("test") == 1
    assert order[-1] == "test"


def test_macs_are_those_of_the_longest_text_that_a_model_can_read(tmp_path):
    _, summary = run(tmp_path, *TEXT, "model.positions=48", "dataset.max_length=48", "epochs=1")
    assert summary["macs"]["tokens"] == 48
