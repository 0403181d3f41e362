"""Distillation of layers to the closest open ones: the matching, the loss, and what is learned beside the model."""

import pytest
import torch
from torch import nn

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.config import ConfigError
from pruneexp.datasets.base import TARGET
from pruneexp.models.heads import Heads
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.dynamic_layers import DynamicLayers, matched, open_layers, quarters
from pruneexp.tasks.hidden_states import masked_distance, predict_with_states
from pruneexp.tasks.multi_task import MultiTask

TOKENS = {"input_ids": torch.arange(3, 13).view(2, 5), "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}
BATCH = {"inputs": TOKENS, "labels": torch.tensor([0, 1])}


def bert(layers=4, seed=0, width=12):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 3, "intermediate_size": 20}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=30, max_position_embeddings=16, **sizes, **dropout)
    return BertForSequenceClassification(config).double().eval()


def close_(model, *layers):
    """Lets the FFNs of these layers, 1 for the first, pass on nothing."""
    for layer in layers:
        nn.init.zeros_(model.bert.encoder.layer[layer - 1].output.dense.weight)


def distillation(student, teacher, **options):
    options = {"weight": 0.0, "temperature": 2.0, "output_weight": 0.5, "layer_weight": 2.0} | options
    options = {"layers": None, "increasing": True} | options
    task = DynamicLayers(
        Classification(metrics=("accuracy",), label_smoothing=0.0), teacher, teacher="dense", **options
    )
    task.check(student)
    return task


def test_the_closest_layer_is_taken_whatever_the_others_took():
    distances = [[3.0, 1.0, 9.0], [5.0, 4.0, 6.0], [9.0, 2.0, 3.0]]
    assert matched(distances, [1, 3, 4], [2, 4, 6], increasing=False) == [(3, 2), (3, 4), (3, 6)]


def test_from_the_last_layer_down_each_match_is_below_the_one_before():
    distances = [[3.0, 1.0, 9.0], [5.0, 4.0, 1.0], [9.0, 3.0, 2.0]]
    assert matched(distances, [1, 3, 4], [2, 4, 6], increasing=True) == [(1, 2), (3, 4), (4, 6)]


def test_a_layer_that_has_none_left_below_is_not_matched():
    assert matched([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [2, 5], [1, 2, 3], increasing=True) == [(2, 3)]
    assert matched([[1.0], [1.0]], [2], [1, 2], increasing=False) == [(2, 1), (2, 2)]


def test_quarters_of_an_encoder():
    assert [quarters(depth) for depth in (12, 6, 4, 2, 1)] == [[3, 6, 9, 12], [1, 3, 4, 6], [1, 2, 3, 4], [1, 2], [1]]


def test_open_layers_are_those_whose_ffn_passes_on_something():
    model = bert()
    close_(model, 1, 4)
    assert open_layers(model) == [2, 3]


@pytest.mark.parametrize("increasing", [True, False])
def test_loss_by_hand(increasing):
    student, teacher = bert(), bert(seed=1)
    close_(student, 2)
    task = distillation(student, teacher, layers=[2, 4], increasing=increasing)
    nn.init.normal_(task.own.weight)
    outputs, states = predict_with_states(student, TOKENS)
    _, wanted = predict_with_states(teacher, TOKENS)
    real = TOKENS["attention_mask"]
    of = {
        (own, other): masked_distance(states[own] @ task.own.weight.T, wanted[other], real)
        for own in (1, 3, 4)
        for other in (2, 4)
    }
    last = min((1, 3, 4), key=lambda own: of[own, 4])
    below = [own for own in (1, 3, 4) if own < last or not increasing]
    layers = of[last, 4] + (min(of[own, 2] for own in below) if below else 0)
    wanted = 0.5 * nn.functional.cross_entropy(outputs, BATCH["labels"]) + 2.0 * layers
    assert task.loss(student, BATCH).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_student_equal_to_its_teacher_is_at_no_distance_while_all_layers_are_open():
    student = bert()
    task = distillation(student, bert(), output_weight=0.0)
    assert task.loss(student, BATCH).item() == pytest.approx(0.0, abs=1e-20)
    close_(student, 3)
    assert task.loss(student, BATCH).item() > 1e-4


def test_with_no_open_layer_there_is_the_rest_of_the_loss():
    student = bert()
    close_(student, 1, 2, 3, 4)
    task = distillation(student, bert(seed=1))
    own = nn.functional.cross_entropy(student(**TOKENS).logits, BATCH["labels"])
    loss = task.loss(student, BATCH)
    assert loss.item() == pytest.approx(0.5 * own.item(), rel=1e-6)
    loss.backward()
    assert not task.own.weight.grad.any()  # but there is one, which several processes wait for


@pytest.mark.parametrize("several", [False, True])
def test_the_matrix_is_trained_with_the_model_alone_and_beside_auxiliary_tasks(several):
    student = bert()
    task = distillation(student, bert(seed=1))
    if several:
        heads = Heads(student, {"other": bert()})
        task = MultiTask(
            task,
            {"other": Classification(metrics=("accuracy",), label_smoothing=0.0)},
            weights={TARGET: 1.0},
            heads=heads,
        )
    module = task.module(student)
    task.loss(module, BATCH).backward()
    (name,) = [name for name, _ in module.named_parameters() if "own.weight" in name or name == "target.weight"]
    assert module.get_parameter(name).grad.abs().sum() > 0
    assert name in module.state_dict()
    assert not [name for name in student.state_dict() if "own" in name]


@pytest.mark.parametrize("method", [["method=cofi"], ["method=task_transfer"], ["method=gmp"]], ids=" ".join)
def test_it_goes_with_every_way_of_pruning(method, texts, tmp_path):
    alone = [option for option in texts if "auxiliary" not in option]
    shared = ["model.num_layers=2", "epochs=4", "dense=pretrained", "sparsity=0.5", f"output_dir={tmp_path}", *method]
    shared += ["distillation=cofi", "distillation.weight=0"]
    chosen = alone if method == ["method=cofi"] else texts
    folder, summary = experiment.run(compose([*chosen, *shared]))
    assert summary["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.02)
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weight": -1.0}, r"distillation\.layer_weight=-1\.0: must not be negative"),
        ({"output_weight": -1.0}, r"distillation\.output_weight=-1\.0: must not be negative"),
        ({"layers": [5]}, r"distillation\.layers=\[5\]: want one or more of 1 to 4"),
        ({"layers": [0]}, r"distillation\.layers=\[0\]: want one or more of 1 to 4"),
    ],
)
def test_impossible_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        distillation(bert(), bert(), **options)


def test_a_teacher_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"its hidden states are 24 wide, the student's 12"):
        distillation(bert(), bert(width=24))


def test_images_are_refused(tmp_path):
    options = ["distillation=cofi", "dense=pretrained", "logger=none", "epochs=1", f"output_dir={tmp_path}"]
    with pytest.raises(ConfigError, match="are for transformers"):
        experiment.run(compose(options))
