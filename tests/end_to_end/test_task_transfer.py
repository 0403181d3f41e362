"""Task transfer from options to files: couplings and their limits, orders, stop and resume, processes, export."""

import json

import pytest
import torch

import pruneexp
from pruneexp import experiment
from pruneexp.config import ConfigError
from pruneexp.export.steps import Timing, export
from pruneexp.learned_gates import DeltaGates
from pruneexp.report.console import rows
from pruneexp.runs import Run
from pruneexp.tasks.multi_task import MultiTask
from pruneexp.verification.verify import verify
from shared.runs import dying_after, run, same, weights

# Gates that move fast, since there are 30 steps; the last six are fine-tuning.
LEARNING = ["epochs=10", "method.harden_at=0.8", "method.gate_rate=0.5", "method.multiplier_rate=2.0"]
METHOD = ["method=task_transfer", "sparsity=0.6", "model.num_layers=2", *LEARNING]
EXACT = ["model.dropout=0.0", "optimizer.learning_rate=0.003"]
SHARED = "auxiliary_masks"


def close(one, two):
    return one.keys() == two.keys() and all(
        torch.allclose(tensor, two[name], atol=1e-5) for name, tensor in one.items()
    )


@pytest.fixture
def options(texts):
    return [*texts, *METHOD]


def test_the_summary_and_the_table_have_the_mask_of_every_task(options, tmp_path):
    folder, summary = run(tmp_path, *options)
    parameters = dict(pruneexp.load(folder).named_parameters())
    masks = weights(folder, "masks")
    own = {key.removeprefix("text_classification."): mask for key, mask in weights(folder, SHARED).items()}
    prunable = sum(parameters[name].numel() for name in masks)
    assert summary["params"]["prunable"] == prunable
    kept = {name: mask.expand_as(parameters[name]) for name, mask in own.items()}
    both = sum(int((mask & masks[name]).sum()) for name, mask in kept.items())
    count = sum(int(mask.sum()) for mask in kept.values())
    mask = summary["auxiliary"]["text_classification"]["mask"]
    assert mask == {"own": True, "sparsity": 1 - count / prunable, "kept": count, "shared": both / count}
    assert mask["shared"] < 1
    for sparsity in (mask["sparsity"], summary["sparsity"]["prunable"]):
        assert sparsity == pytest.approx(0.6, abs=0.01)
    table = {label: (value, count) for label, _, value, count in rows(summary)}
    assert table["text_classification's mask"] == (f"{100 * mask['sparsity']:.2f} %", f"{count:,} weights")
    left = sum(int(mask.expand_as(parameters[name]).sum()) for name, mask in masks.items())
    assert table["target's mask"][1] == f"{left:,} weights"
    assert table["test majority class"][0] == "50.00 %"


@pytest.mark.parametrize("coupling", ["none", "single"])
def test_one_mask_is_recorded_as_the_mask_of_every_task(coupling, options, tmp_path):
    folder, summary = run(tmp_path, *options, f"method.coupling={coupling}", "epochs=5")
    mask = summary["auxiliary"]["text_classification"]["mask"]
    assert not (folder / f"{SHARED}.safetensors").exists()
    assert (mask["own"], mask["shared"]) == (False, 1.0)
    table = {label: values for label, *values in rows(summary)}
    share = f"{100 * mask['sparsity']:.2f} %"
    assert table["mask of every task"] == ["", share, f"{mask['kept']:,} weights"]
    assert mask["sparsity"] == pytest.approx(summary["sparsity"]["prunable"])


def test_a_very_large_penalty_of_the_deltas_is_one_mask_for_all(options, tmp_path):
    single, _ = run(tmp_path, *options, *EXACT, "method.coupling=single")
    held, summary = run(tmp_path, *options, *EXACT, "method.coupling=delta", "method.delta_penalty=1e9")
    free, _ = run(tmp_path, *options, *EXACT, "method.coupling=delta", "method.delta_penalty=0")
    assert same(weights(single, "masks"), weights(held, "masks"))
    assert close(weights(single), weights(held))
    assert not close(weights(single), weights(free))
    assert summary["auxiliary"]["text_classification"]["mask"]["shared"] == 1.0


def test_no_penalty_and_a_base_that_is_held_is_a_mask_for_each_task(options, tmp_path, monkeypatch):
    multi, _ = run(tmp_path, *options, *EXACT, "method.coupling=multi")
    monkeypatch.setattr(DeltaGates, "param_groups", lambda self, rate: [{"params": [*self.delta.values()], "lr": rate}])
    held, _ = run(tmp_path, *options, *EXACT, "method.coupling=delta", "method.delta_penalty=0")
    for name in ("masks", SHARED):
        assert same(weights(multi, name), weights(held, name))
    assert not same(
        weights(multi, "masks"), {key.partition(".")[2]: mask for key, mask in weights(multi, SHARED).items()}
    )
    assert close(weights(multi), weights(held))


def test_without_coupling_the_auxiliary_task_changes_nothing(options, tmp_path):
    beside, _ = run(tmp_path, *options, "method.coupling=none")
    alone, _ = run(tmp_path, *[option for option in options if "auxiliary" not in option], "method.coupling=none")
    other, _ = run(tmp_path, *options, "method.coupling=single")
    assert same(weights(beside), weights(alone))
    assert not close(weights(beside), weights(other))


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("both_then_target", {"target", "text_classification"}, {"target"}),
        ("target_then_both", {"target"}, {"target", "text_classification"}),
        ("auxiliary_then_target", {"text_classification"}, {"target"}),
    ],
)
def test_each_stage_trains_its_tasks_at_a_rate_of_its_own(order, first, last, options, tmp_path, monkeypatch):
    steps, own = [], MultiTask._own
    loss = MultiTask.loss
    monkeypatch.setattr(
        MultiTask, "loss", lambda self, model, batch: (steps.append(set()), loss(self, model, batch))[1]
    )
    monkeypatch.setattr(MultiTask, "_own", lambda self, name, batch: (steps[-1].add(name), own(self, name, batch))[1])
    rate = ["optimizer.learning_rate=0.001", "method.fine_tuning_rate=0.01", "optimizer.warmup=0"]
    folder, _ = run(tmp_path, *options, f"method.order={order}", *rate)
    assert steps == [first] * 24 + [last] * 6
    rates = [row["learning_rate"] for row in Run(folder, {}, None).rows()]  # of the steps 3, 6, ..., 30
    assert rates[7] == pytest.approx(0.001 / 24)
    assert rates[8] == pytest.approx(0.01 * 4 / 6)


def test_in_turn_a_stage_of_one_task_has_a_batch_of_it_in_every_step(options, tmp_path, monkeypatch):
    steps, own = [], MultiTask._own
    monkeypatch.setattr(MultiTask, "_own", lambda self, name, batch: (steps.append(name), own(self, name, batch))[1])
    run(tmp_path, *options, "multi_task.alternate=true")
    assert steps == ["target", "text_classification"] * 24 + ["target"] * 12


@pytest.mark.parametrize("transfer", ["weights", "masks"])
def test_what_is_not_taken_over_makes_a_difference(transfer, options, tmp_path):
    order = "method.order=auxiliary_then_target"
    both, _ = run(tmp_path, *options, *EXACT, order)
    part, summary = run(tmp_path, *options, *EXACT, order, f"method.transfer={transfer}")
    assert same(weights(both, "masks"), weights(part, "masks")) is (transfer == "masks")
    assert not close(weights(both), weights(part))
    assert summary["sparsity"]["prunable"] == pytest.approx(0.6, abs=0.01)


def test_a_sparsity_of_zero_is_dense_training_in_the_same_stages(options, tmp_path):
    folder, summary = run(tmp_path, *options, "sparsity=0", "method.coupling=none", "method.transfer=masks")
    assert summary["sparsity"]["prunable"] == 0.0
    assert weights(folder, "masks") == {}
    rates = [row["learning_rate"] for row in Run(folder, {}, None).rows()]
    assert rates[8] > rates[7]


def test_less_data_is_the_same_for_every_coupling_and_for_the_auxiliary_task(options, tmp_path, monkeypatch):
    taken, init = [], experiment.Trainer.__init__

    def noting(self, model, splits, **parts):
        found = [splits, *(one.splits for one in parts["auxiliary"].values())]
        taken.append([[draw.labels.tolist() for draw in (one.train, one.validation, one.test)] for one in found])
        init(self, model, splits, **parts)

    monkeypatch.setattr(experiment.Trainer, "__init__", noting)
    less = ["dataset.fraction=0.5", "auxiliary.max_examples=10"]
    for number, coupling in enumerate(("none", "single", "multi", "delta"), start=1):
        run(tmp_path, *options, *less, f"method.coupling={coupling}", f"seed={number}", "epochs=4")
    assert taken[0] == taken[1] == taken[2] == taken[3]
    assert [len(part) for part in taken[0][0]] == [12, 10, 12]
    assert [len(part) for part in taken[0][1]] == [10, 10, 12]
    assert sorted(taken[0][0][0]) == [0] * 6 + [1] * 6


@pytest.mark.parametrize("saves", [4, 8, 9], ids=["pruning", "between", "fine_tuning"])
@pytest.mark.parametrize("extra", [[], ["method.order=auxiliary_then_target", "method.transfer=masks"]], ids=" ".join)
def test_a_killed_run_resumes_bitwise_in_either_stage(extra, saves, options, tmp_path):
    options = [*options, *extra, "training.ema_decay=0.9"]
    steady, summary = run(tmp_path / "steady", *options)
    with dying_after(saves):
        run(tmp_path / "killed", *options)
    resumed, again = run(tmp_path / "killed", *options)
    assert again["resumed_from"] == 3 * saves
    for name in ("model", "masks", "heads", *([] if extra else [SHARED])):
        assert same(weights(steady, name), weights(resumed, name))
    assert summary["auxiliary"] == again["auxiliary"]


def test_several_auxiliary_tasks_have_masks_of_their_own(options, tmp_path):
    path = next(option for option in options if option.startswith("dataset.path="))
    third = ["auxiliary@auxiliary_2=text_classification", path.replace("dataset", "auxiliary_2", 1)]
    third += ["auxiliary_2.max_length=16", "auxiliary_2.weight=2"]
    folder, summary = run(tmp_path, *options, *third)
    assert {key.partition(".")[0] for key in weights(folder, SHARED)} == set(summary["auxiliary"])
    assert len(summary["auxiliary"]) == 2
    for own in summary["auxiliary"].values():
        assert own["mask"]["sparsity"] == pytest.approx(0.6, abs=0.01)


PAIRS = ("sentence1", "sentence2")


@pytest.mark.parametrize(
    ("name", "columns", "labels"),
    [
        ("glue/stsb", PAIRS, [0.5, 4.0, 2.5]),
        ("glue/mrpc", PAIRS, [0, 1, 1]),
        ("glue/qqp", ("question1", "question2"), [0, 1, 1]),
        ("sci/rct", ("text",), ["METHODS", "RESULTS", "OBJECTIVE"]),
        ("sci/sciie", ("text",), ["USED-FOR", "PART-OF", "COMPARE"]),
        ("sci/citation_intent", ("text",), ["Background", "Uses", "Future"]),
        ("sci/chemprot", ("text",), ["INHIBITOR", "AGONIST", "SUBSTRATE"]),
    ],
)
def test_the_papers_tasks_can_help(name, columns, labels, options, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [
            {**dict.fromkeys(columns, f"the hen has {number} legs"), "label": labels[number % 3], "idx": number}
            for number in range(30)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    alone = [option for option in options if "auxiliary" not in option]
    other = [f"auxiliary={name}", f"auxiliary.path={folder}", "auxiliary.max_length=16", "auxiliary.fraction=0.5"]
    _, summary = run(tmp_path, *alone, *other, "epochs=4")
    own = summary["auxiliary"][name.replace("/", "_")]
    assert own["mask"]["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert own["headline"]["name"] == ("pearson" if name == "glue/stsb" else "accuracy")


def test_the_shrunk_model_is_exported_and_computes_the_same(options, tmp_path):
    folder, _ = run(tmp_path, *options, "sparsity=0.9")
    masks = weights(folder, "masks")
    assert any(not mask.any() for name, mask in masks.items() if name.endswith("output.dense.bias"))  # whole sub-layers
    record = export(folder, folder / "export", formats=[], timing=Timing([1], 2, False), device="cpu", multiple_of=1)
    assert record["relative_error"] <= 1e-6
    dense, _, shrunk = (row["parameters"] for row in record["rows"])
    assert shrunk < dense


def test_gates_on_hidden_dimensions_survive_a_stop_and_make_the_stream_narrower(options, tmp_path):
    units = ["pattern.units=[attention_layers,heads,ffn_layers,ffn,hidden]", "method.start.hidden=0.0", "epochs=6"]
    steady, summary = run(tmp_path / "steady", *options, *units)
    masks = weights(steady, "masks")
    stream = masks["bert.encoder.layer.0.attention.self.query.weight"].any(0)
    assert 0 < stream.sum() < len(stream)
    assert not any("LayerNorm" in name or "embeddings" in name for name in masks)
    for name, tensor in weights(steady).items():
        if "LayerNorm" in name or "embeddings.weight" in name:
            assert not tensor[..., ~stream].any()
    assert summary["sparsity"]["prunable"] == pytest.approx(0.6, abs=0.01)
    with dying_after(saves=3):
        run(tmp_path / "killed", *options, *units)
    resumed, _ = run(tmp_path / "killed", *options, *units)
    assert all(same(weights(steady, name), weights(resumed, name)) for name in ("model", "masks", "heads", SHARED))
    assert not verify(resumed).differences
    record = export(steady, steady / "export", formats=[], timing=Timing([1], 2, False), device="cpu", multiple_of=1)
    assert record["relative_error"] <= 1e-6
    assert pruneexp.load(steady / "export").bert.embeddings.word_embeddings.weight.shape[1] == stream.sum()


def test_auxiliary_masks_of_an_earlier_run_go_when_it_starts_over(options, tmp_path):
    folder, _ = run(tmp_path, *options, "epochs=5")
    before = weights(folder, SHARED)
    again, _ = run(tmp_path, *options, "epochs=5", "force=true")
    assert same(before, weights(again, SHARED))
    Run(folder, {}, None).clear()
    assert not (folder / f"{SHARED}.safetensors").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["method.coupling=triple"], "method.coupling='triple': want none or single or multi or delta"),
        (["method.order=target"], "method.order='target': want both_then_target or"),
        (["method.transfer=all"], "method.transfer='all': want both or weights or masks"),
        (
            ["method.coupling=none", "method.order=target_then_both"],
            "method.order=target_then_both: needs the auxiliary",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_in_one_line(extra, message, options, tmp_path):
    with pytest.raises(ConfigError) as error:
        run(tmp_path, *options, *extra)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
