"""Training with auxiliary tasks, from options to files: text and images, every way of pruning, stop and resume."""

import pytest
import torch
import yaml

import pruneexp
from pruneexp.cli import CONFIGS, compose, help_text
from pruneexp.config import auxiliary_keys, dense_config
from pruneexp.models.bert_tiny import BertTiny
from pruneexp.naming import run_folder, run_hash
from pruneexp.runs import Run
from pruneexp.trainer import Trainer
from shared.runs import dying_after, run, same, weights

SHORT = ["batch_size=8", "epochs=2", "dense=none", "logger=none", "device=cpu"]
DIGITS = ["dataset=digits", "dataset.max_examples=40", "model=resnet20", "batch_size=20", *SHORT[1:]]


def test_a_run_leaves_a_plain_model_and_the_results_of_both_tasks(texts, tmp_path):
    folder, summary = run(tmp_path, *texts, "auxiliary.weight=0.5", "auxiliary.batch_size=4", "method=gmp")
    assert folder.name.startswith("gmp-bert_tiny-text_classification+text_classification-s0.9-seed1-")
    own = summary["auxiliary"]["text_classification"]
    assert (own["weight"], own["batch_size"]) == (0.5, 4)
    assert own["examples"] == {"train": 24, "validation": 10, "test": 12}
    assert own["headline"] == {"name": "pearson", "value": own["test"]["pearson"], "split": "test"}
    assert summary["headline"]["name"] == "accuracy"
    assert summary["steps"] == 6
    row = Run(folder, {}, None).rows()[-1]
    assert {"validation/accuracy", "validation_text_classification/pearson"} <= row.keys()
    assert weights(folder)["classifier.weight"].shape == (2, 16)
    heads = weights(folder, "heads")
    assert {name: tuple(tensor.shape) for name, tensor in heads.items()} == {
        "text_classification.classifier.weight": (1, 16),
        "text_classification.classifier.bias": (1,),
    }
    assert pruneexp.load(folder).classifier.out_features == 2


def test_a_run_without_auxiliary_tasks_has_no_heads(tmp_path):
    folder, summary = run(tmp_path, *DIGITS, "method=magnitude")
    assert summary["auxiliary"] == {}
    assert not (folder / "heads.safetensors").exists()


def test_the_auxiliary_task_changes_the_shared_weights_and_its_own_head_learns(texts, tmp_path):
    with_task, _ = run(tmp_path, *texts, "method=dense", "optimizer.learning_rate=0.01")
    without, _ = run(tmp_path, *texts, "method=dense", "optimizer.learning_rate=0.01", "auxiliary.weight=0")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(weights(with_task)[name], weights(without)[name])
    heads = weights(with_task, "heads"), weights(without, "heads")
    assert not same(*heads)
    rows = Run(with_task, {}, None).rows()
    losses = [row["validation_text_classification/loss"] for row in rows]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("options", [[], ["multi_task.alternate=true"]], ids=["together", "in_turn"])
def test_a_killed_run_resumes_bitwise(options, texts, tmp_path):
    options = [*texts, *options, "method=pdp", "training.ema_decay=0.9"]
    steady, summary = run(tmp_path / "steady", *options)
    with dying_after():
        run(tmp_path / "killed", *options)
    resumed, again = run(tmp_path / "killed", *options)
    assert again["resumed_from"] == summary["steps"] / 2
    for name in ("model", "masks", "heads"):
        assert same(weights(steady, name), weights(resumed, name))
    assert summary["auxiliary"] == again["auxiliary"]


def test_in_turn_an_epoch_takes_a_step_of_each_task_for_every_batch_of_the_target(texts, tmp_path):
    folder, summary = run(tmp_path, *texts, "multi_task.alternate=true", "method=magnitude")
    assert summary["steps"] == 12
    assert [row["epoch"] for row in Run(folder, {}, None).rows()] == [1.0, 2.0]


def test_accumulation_gives_the_same_weights(texts, tmp_path):
    options = [*texts, "model.dropout=0.0", "method=dense", "optimizer=sgd", "auxiliary.batch_size=5"]
    whole, _ = run(tmp_path, *options)
    pieces, _ = run(tmp_path, *options, "training.accumulate=3")
    for name in ("model", "heads"):
        for key, tensor in weights(whole, name).items():
            assert torch.allclose(tensor, weights(pieces, name)[key], atol=1e-6), key


def test_mixed_precision_is_for_training_and_validation_of_every_task_and_not_for_the_final_test(
    texts, tmp_path, monkeypatch
):
    seen = []
    evaluate = Trainer.evaluate

    def noting(self, split, task="target"):
        layer = self.model.bert.encoder.layer[0].output.dense
        handle = layer.register_forward_hook(lambda *call: seen.append((task, call[2].dtype)))
        result = evaluate(self, split, task)
        handle.remove()
        return result

    monkeypatch.setattr(Trainer, "evaluate", noting)
    run(tmp_path, *texts, "precision=bf16", "epochs=1", "method=dense")
    names = ("target", "text_classification")
    validation, test = seen[: len(seen) // 2], seen[len(seen) // 2 :]  # 10 and 12 examples are 2 batches each
    assert set(validation) == {(name, torch.bfloat16) for name in names}
    assert set(test) == {(name, torch.float32) for name in names}


def test_all_texts_are_read_with_the_tokenizer_of_the_target(texts, tmp_path, monkeypatch):
    made = []
    new_tokenizer = BertTiny.new_tokenizer

    def noting(self, read):
        made.append(len(read))
        return new_tokenizer(self, read)

    monkeypatch.setattr(BertTiny, "new_tokenizer", noting)
    run(tmp_path, *texts, "epochs=0.4", "method=dense", "dataset.max_examples=8")
    assert made == [24]


@pytest.mark.parametrize(
    "method",
    [
        ["method=pdp", "pattern=transformer", "sparsity=0.5"],
        ["method=magnitude", "pattern=transformer", "sparsity=0.5"],
        ["method=sr_ste"],
    ],
    ids=" ".join,
)
def test_methods_prune_encoders_with_an_auxiliary_loss(method, texts, tmp_path):
    folder, summary = run(tmp_path, *texts, *method)
    assert summary["sparsity"]["prunable"] > 0
    masks, pruned = weights(folder, "masks"), weights(folder)
    for name, mask in masks.items():
        assert not pruned[name][~mask.expand_as(pruned[name])].any()


@pytest.mark.parametrize(
    "method",
    [
        ["method=pdp"],
        ["method=pdp", "pattern=channel"],
        ["method=channel"],
        ["method=task_transfer", "pattern=channel"],
    ],
    ids=" ".join,
)
def test_images_of_another_size_train_a_head_and_statistics_of_their_own(method, tmp_path):
    """The auxiliary task is digits again, seen in another size, so that it has to be made to fit."""
    auxiliary = ["auxiliary=digits", "auxiliary.max_examples=30", "auxiliary.image_size=12"]
    folder, summary = run(tmp_path, *DIGITS, *auxiliary, *method, "sparsity=0.5")
    assert 0 < summary["auxiliary"]["digits"]["headline"]["value"] <= 1
    model, heads = weights(folder), weights(folder, "heads")
    norms = [name for name in model if name.endswith("running_mean")]
    assert norms
    for name in norms:
        assert not torch.equal(model[name], heads[f"digits.{name}"])
    (classifier,) = (name for name in heads if name.endswith("weight"))
    assert model[classifier.removeprefix("digits.")].shape == heads[classifier].shape


@pytest.mark.parametrize("alone", [False, True])
def test_the_dense_run_has_the_auxiliary_task_unless_that_is_off(alone, texts, tmp_path):
    options = [*texts, "dense=train", "method=magnitude", "epochs=1", f"dense_run.auxiliary={not alone}"]
    folder, _ = run(tmp_path, *options)
    (dense,) = tmp_path.glob("default/dense-*")
    assert ("+" in dense.name) is not alone
    assert (dense / "heads.safetensors").exists() is not alone
    start = Run(folder, {}, None).rows()[0]
    end = Run(dense, {}, None).rows()[-1]
    assert start["validation/loss"] == pytest.approx(end["validation/loss"], abs=1e-6)
    if not alone:  # the head goes on where the dense run left it
        key = "validation_text_classification/loss"
        assert start[key] == pytest.approx(end[key], abs=1e-6)


def test_the_dense_run_of_the_target_alone_is_that_of_runs_without_auxiliary_tasks():
    shared = ["model=bert_tiny", "dataset=text_embedded"]
    alone = compose([*shared, "auxiliary=text_embedded", "dense_run.auxiliary=false", "multi_task.alternate=true"])
    assert run_hash(dense_config(alone)) == run_hash(dense_config(compose(shared)))
    assert run_folder(dense_config(alone)).name == run_folder(dense_config(compose(shared))).name


def test_the_examples_of_every_task_are_the_same_whatever_the_method_and_the_other_tasks(monkeypatch, tmp_path):
    taken = []
    init = Trainer.__init__

    def noting(self, model, splits, **options):
        found = {"target": splits, **{name: one.splits for name, one in options["auxiliary"].items()}}
        taken.append({name: [part.train.labels.tolist(), part.test.labels.tolist()] for name, part in found.items()})
        init(self, model, splits, **options)

    monkeypatch.setattr(Trainer, "__init__", noting)
    small = ["dataset=digits", "dataset.fraction=0.05", "epochs=0.1", "batch_size=20", "dense=none", "logger=none"]
    run(tmp_path, *small, "method=random", "seed=5")
    run(tmp_path, *small, "method=magnitude", "auxiliary=digits", "auxiliary.fraction=0.05")
    alone, beside = taken
    assert alone["target"] == beside["target"] == beside["digits"]
    assert len(alone["target"][0]) == 58  # 5 % of 1,797 less 360 for test and 287 for validation
    counts = torch.tensor(alone["target"][0]).bincount()
    assert counts.max() - counts.min() <= 1


def test_several_tasks_have_names_weights_and_heads_of_their_own(texts, tmp_path):
    path = next(option for option in texts if option.startswith("dataset.path="))
    third = [
        "auxiliary@auxiliary_2=text_classification",
        path.replace("dataset", "auxiliary_2", 1),
        "auxiliary_2.weight=2",
    ]
    folder, summary = run(tmp_path, *texts, *third, "auxiliary_2.max_length=16", "method=magnitude", "epochs=1")
    assert {name: own["weight"] for name, own in summary["auxiliary"].items()} == {
        "text_classification": 1.0,
        "text_classification_2": 2,
    }
    assert {name.partition(".")[0] for name in weights(folder, "heads")} == set(summary["auxiliary"])


@pytest.mark.parametrize("option", ["auxiliary.weight=2", "auxiliary.batch_size=4", "auxiliary.fraction=0.5"])
def test_options_of_the_auxiliary_task_change_the_hash(option):
    options = ["model=bert_tiny", "dataset=text_embedded", "auxiliary=text_embedded"]
    assert run_hash(compose([*options, option])) != run_hash(compose(options))


@pytest.mark.parametrize("option", ["multi_task.alternate=true", "multi_task.target_weight=2"])
def test_how_tasks_are_mixed_changes_the_hash(option):
    options = ["dataset=digits", "auxiliary=digits"]
    assert run_hash(compose([*options, option])) != run_hash(compose(options))


END = "schedule.end=0.6"  # the default of then


@pytest.mark.parametrize(
    ("options", "pruned", "dense"),
    [
        (["method=gmp", END], "8afc0097", "8924bf37"),
        (["method=gmp", END, "model=resnet18", "dataset=cifar10"], "54959296", "f404988d"),
        (["method=gmp", END, "model=bert_tiny", "dataset=text_embedded"], "9cda091c", "6e62881b"),
    ],
)
def test_runs_without_auxiliary_tasks_keep_the_names_they_had_before_there_were_any(options, pruned, dense):
    config = compose(options)
    assert (run_hash(config), run_hash(dense_config(config))) == (pruned, dense)


def test_every_dataset_can_be_an_auxiliary_task_with_the_same_options():
    datasets, auxiliaries = (
        {str(path.relative_to(CONFIGS / group)) for path in (CONFIGS / group).rglob("[!_]*.yaml")}
        for group in ("dataset", "auxiliary")
    )
    assert auxiliaries - datasets == {"none.yaml"}
    assert datasets <= auxiliaries
    for name in sorted(file.removesuffix(".yaml") for file in datasets):
        config = compose([f"auxiliary={name}"])
        node = dict(config["auxiliary"])
        assert (node.pop("weight"), node.pop("batch_size")) == (1.0, None)
        assert node == yaml.safe_load((CONFIGS / "dataset" / f"{name}.yaml").read_text())
        assert auxiliary_keys(config) == {name.replace("/", "_"): "auxiliary"}


def test_the_help_says_how_to_add_tasks():
    text = help_text()
    assert "auxiliary@auxiliary_2=glue/rte" in text
    assert "auxiliary   _task" not in text
    assert ", cifar10" in text[text.index("  auxiliary ") :]
