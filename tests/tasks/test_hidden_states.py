from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.config import ConfigError
from pruneexp.tasks.classification import Classification
from pruneexp.tasks.hidden_states import (
    HiddenStates,
    encoder_size,
    layer_pairs,
    masked_distance,
    predict_with_states,
)

REAL = torch.tensor([[1, 1], [1, 0]])


class Encoder(nn.Module):
    """One layer x -> w x on tokens given as numbers; the logits are the first token's state."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))
        self.asked = 0

    def forward(self, tokens, attention_mask, *, output_hidden_states=False):
        self.asked += output_hidden_states
        states = (tokens, self.w * tokens)
        return SimpleNamespace(logits=states[1][:, 0], hidden_states=states if output_hidden_states else None)


def batch(padding=0.0):
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[2.0, 4.0], [padding, padding]]])
    return {"inputs": {"tokens": tokens, "attention_mask": REAL}, "labels": torch.tensor([0, 1])}


def hidden(teacher, **options):
    options = {"weight": 0.0, "temperature": 2.0, "hidden_weight": 1.0, "layers": None} | options
    task = Classification(metrics=("accuracy",), label_smoothing=0.0)
    return HiddenStates(task, teacher, teacher="dense", **options)


def test_loss_by_hand():
    # (w_s - w_t)^2 = 4 times the mean square: of text 0 (1 + 4 + 9 + 0) / 4 = 3.5, of text 1, one token, (4 + 16) / 2
    student, task = Encoder(3.0), hidden(Encoder(1.0), hidden_weight=0.5)
    own = task.task.loss(student, batch())
    assert task.loss(student, batch()).item() == pytest.approx(own.item() + 0.5 * 4 * (3.5 + 10) / 2)


def test_layers_are_averaged_and_the_embeddings_are_layer_0():
    whole, half = (hidden(Encoder(1.0), layers=layers) for layers in ([1], [0, 1]))
    student = Encoder(3.0)
    own = whole.task.loss(student, batch())
    assert (half.loss(student, batch()) - own).item() == pytest.approx((whole.loss(student, batch()) - own).item() / 2)


@pytest.mark.parametrize("padding", [7.0, float("inf")])
def test_padding_is_ignored(padding):
    task = hidden(Encoder(1.0))
    assert torch.equal(task.loss(Encoder(3.0), batch(padding)), task.loss(Encoder(3.0), batch()))


def test_gradient_reaches_the_student_only():
    student, teacher = Encoder(3.0), Encoder(1.0)
    task = hidden(teacher, weight=1.0)  # nothing of the task's own loss
    task.loss(student, batch()).backward()
    assert teacher.w.grad is None
    assert student.w.grad.item() != 0


def test_gradient_of_the_distance_by_hand():
    student = torch.tensor([[[3.0, 1.0], [5.0, 5.0]], [[0.0, 0.0], [9.0, 9.0]]], requires_grad=True)
    masked_distance(student, torch.zeros(2, 2, 2), REAL).backward()
    # 2 S / (texts x real tokens of the text x width)
    assert student.grad.tolist() == [[[0.75, 0.25], [1.25, 1.25]], [[0.0, 0.0], [0.0, 0.0]]]


def test_weights_of_zero_are_the_task_itself():
    student, teacher = Encoder(3.0), Encoder(1.0)
    task = hidden(teacher, hidden_weight=0.0)
    assert torch.equal(task.loss(student, batch()), task.task.loss(student, batch()))
    assert student.asked == teacher.asked == 0


def test_micro_batches_add_up_to_the_batch():
    task, student, whole = hidden(Encoder(1.0)), Encoder(3.0), batch()
    halves = [
        {
            "inputs": {key: value[i : i + 1] for key, value in whole["inputs"].items()},
            "labels": whole["labels"][i : i + 1],
        }
        for i in (0, 1)
    ]
    assert sum(task.loss(student, half) for half in halves).item() / 2 == pytest.approx(
        task.loss(student, whole).item()
    )


def test_layers_pair_with_every_kth_of_a_deeper_teacher():
    assert layer_pairs(3, 3, None) == [(1, 1), (2, 2), (3, 3)]
    assert layer_pairs(2, 6, [0, 2]) == [(0, 0), (2, 6)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, 6, None), "has 6 layers, no multiple of the student's 4"),
        ((6, 3, None), "has 3 layers, no multiple of the student's 6"),
        ((2, 2, [3]), r"distillation\.layers=\[3\]: want one or more of 0 \(the embeddings\) to 2"),
        ((2, 2, []), r"distillation\.layers=\[\]"),
    ],
)
def test_layers_that_cannot_be_paired_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        layer_pairs(*arguments)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"distillation\.hidden_weight=-1"):
        hidden(Encoder(1.0), hidden_weight=-1.0)


def sized(kind, **sizes):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, num_labels=2, **sizes)).eval()


SMALL_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL_BERT |= {"vocab_size": 50, "pad_token_id": 0}
FAMILIES = {
    "bert": SMALL_BERT,
    "roberta": SMALL_BERT,
    "electra": SMALL_BERT | {"embedding_size": 16},
    "deberta-v2": SMALL_BERT,
    "modernbert": SMALL_BERT | {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_states_of_the_encoders_of_transformers(kind):
    model = sized(kind, **FAMILIES[kind])
    inputs = {"input_ids": torch.tensor([[3, 4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    logits, states = predict_with_states(model, inputs)
    assert torch.equal(logits, model(**inputs).logits)
    assert [tuple(state.shape) for state in states] == [(1, 4, 16)] * 3
    assert encoder_size(model) == (2, 16)


TEXT = ["model=bert_tiny", "dataset=text_embedded", "dataset.max_examples=60", "batch_size=20", "epochs=1"]
TEXT += ["model.hidden_size=32", "model.ffn_size=64", "dense=pretrained", "logger=none", "device=cpu"]


def run(folder, *options):
    return experiment.run(compose([*TEXT, f"output_dir={folder}", *options]))


def test_runs_with_a_teacher_and_accumulation_changes_nothing(tmp_path):
    from safetensors.torch import load_file

    options = ["model.dropout=0.0", "optimizer=sgd", "method=magnitude"]
    logits, _ = run(tmp_path, *options, "distillation=logits")
    whole, _ = run(tmp_path, *options, "distillation=hidden")
    pieces, _ = run(tmp_path, *options, "distillation=hidden", "training.accumulate=3")
    none, _ = run(tmp_path, *options, "distillation=hidden", "distillation.hidden_weight=0")
    weights = [load_file(folder / "model.safetensors") for folder in (logits, whole, pieces, none)]
    for name in weights[0]:
        assert torch.allclose(weights[1][name], weights[2][name], atol=1e-6), name
        assert torch.equal(weights[0][name], weights[3][name]), name
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_teacher_of_another_width_and_an_image_model_are_named(tmp_path):
    wide, _ = run(tmp_path, "method=dense", "model.hidden_size=64")
    with pytest.raises(ConfigError, match="its hidden states are 64 wide, the student's 32"):
        run(tmp_path, "distillation=hidden", f"distillation.teacher={wide}")
    images = ["dataset.max_examples=60", "dense=pretrained", "logger=none", f"output_dir={tmp_path}"]
    with pytest.raises(
        ConfigError, match=r"distillation=hidden and cofi: are for transformers.*take distillation=logits"
    ):
        experiment.run(compose([*images, "distillation=hidden"]))


def test_a_deeper_teacher_is_matched_at_every_second_layer(tmp_path):
    deep, _ = run(tmp_path, "method=dense", "model.num_layers=4")
    _, summary = run(tmp_path, "method=gmp", "distillation=hidden", f"distillation.teacher={deep}")
    assert summary["sparsity"]["prunable"] == pytest.approx(0.9, abs=1e-4)
