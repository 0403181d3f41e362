"""Task transfer: what each task's gates do, what they cost, and what fine-tuning takes over."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pruneexp.hard_concrete import HardConcrete
from pruneexp.masks import apply_masks_, mask_gradients_, zeros
from pruneexp.methods.base import Setting
from pruneexp.methods.task_transfer import TaskTransfer
from pruneexp.patterns import Unstructured
from pruneexp.schedules import Constant, Polynomial, Timeline
from pruneexp.stages import Stage
from pruneexp.structured import Transformer
from pruneexp.surgery.shrink import shrink
from shared.small_models import START, TOKENS, UNITS, bert

LAMBDAS = {"target": torch.tensor([-3.0, 2.0]), "other": torch.tensor([-1.0, 4.0])}


def transfer(model, *, names=("target", "other"), schedule=None, pattern=None, seed=1, **changes):
    """The method set up on a model, and the task that says which one a forward pass serves."""
    options = {"sparsity": 0.5, "start": START, "noise": 1.0, "limit": 100.0, "harden_at": 0.5}
    options |= {"gate_rate": 0.1, "multiplier_rate": 0.1, "fine_tuning_rate": None}
    options |= {"coupling": "delta", "delta_penalty": 0.01, "order": "both_then_target", "transfer": "both"}
    method = TaskTransfer(
        pattern=pattern or Transformer(units=UNITS, norm="l2"),
        schedule=schedule or Constant(0.0),
        exclude=["head", "embeddings"],
        gate=HardConcrete(temperature=2 / 3, low=-0.1, high=1.1, sharpness=0.8),
        **{**options, **changes},
    )
    task = SimpleNamespace(names=names, current=names[0])
    method.setup(model, Setting(task=task, batches=[{"inputs": TOKENS}], timeline=Timeline(5, 10), seed=seed))
    return method, task


def shift_rows_(method):
    """Makes the rows of the tasks different, and the multipliers too."""
    learned = method.units.learned
    own = getattr(learned, "own", None) or learned.delta
    with torch.no_grad():
        for number, row in enumerate(own.values()):
            row.add_(torch.randn(len(row), generator=torch.Generator().manual_seed(number)))
        for name, lagrangian in method.units.lagrangians.items():
            lagrangian.multipliers.copy_(LAMBDAS[name])


def logits(model):
    with torch.no_grad():
        return model(**TOKENS).logits


@pytest.mark.parametrize("coupling", ["multi", "delta"])
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_has_the_gates_of_the_task_that_it_serves(coupling, training):
    model = bert().train(training)
    method, task = transfer(model, coupling=coupling)
    method.before_step(0)
    shift_rows_(method)
    seen = {}
    for name in ("target", "other", "target"):
        task.current = name
        method.before_step(1)
        output, values = logits(model), torch.cat(list(method.units.gates.values.values()))
        if name in seen:
            assert torch.equal(seen[name][0], output)
        seen[name] = output, values
    assert not torch.equal(seen["target"][1], seen["other"][1])
    assert not torch.equal(seen["target"][0], seen["other"][0])
    if not training:
        for name, (_, values) in seen.items():
            soft = (1.2 * method.units.learned.log_alpha(name)).sigmoid()
            assert torch.allclose(values, torch.where(values > 0, soft, 0.0))


@pytest.mark.parametrize("coupling", ["none", "single"])
def test_one_mask_serves_every_task(coupling):
    model = bert()
    method, task = transfer(model, coupling=coupling)
    method.before_step(0)
    outputs = [logits(model)]
    task.current = "other"
    assert torch.equal(outputs[0], logits(model))
    assert len(method.units.lagrangians) == len(method.units.learned.parameters()) == 1


def test_the_penalty_is_the_mean_of_the_size_terms_and_the_squares_of_the_deltas():
    method, _ = transfer(bert(), schedule=Polynomial(begin=0.0, end=0.4, power=1.0), noise=0.0, delta_penalty=0.25)
    method.before_step(2)
    shift_rows_(method)
    terms = []
    for number, name in enumerate(("target", "other")):
        delta = torch.randn(method.nesting.own.shape, generator=torch.Generator().manual_seed(number))
        start = torch.cat([torch.full((len(row),), START[method.groups[group].kind]) for group, row in rows(method)])
        p = torch.sigmoid(start + delta - 2 / 3 * math.log(1 / 11)).double()
        gap = float(method.nesting.sparsity(p)) - 0.5 * 2 / 4
        terms.append(LAMBDAS[name][0] * gap + LAMBDAS[name][1] * gap**2 + 2 * 0.25 * delta.square().sum())
    assert method.penalty().item() == pytest.approx(sum(terms).item() / 2, rel=1e-5)


def rows(method):
    return method.nesting.split(method.nesting.own).items()


def test_log_alpha_of_every_task_stays_within_the_limits():
    method, _ = transfer(bert(), noise=5.0)
    shift_rows_(method)
    method.before_step(1)
    for name in ("target", "other"):
        assert method.units.learned.log_alpha(name).abs().max() <= math.log(100) + 1e-6


def test_deltas_are_held_the_tighter_the_larger_their_penalty():
    """Adam moves by its rate whatever the gradient, so that the rate has to fall with mu."""
    groups = {mu: transfer(bert(), delta_penalty=mu)[0].param_groups() for mu in (0.0, 1e6)}
    assert [group["lr"] for group in groups[0.0]] == [0.1, 0.1, 0.1]
    assert [group["lr"] for group in groups[1e6]] == pytest.approx([0.1, 5e-8, 0.1], rel=1e-5)
    assert [len(group["params"]) for group in groups[0.0]] == [1, 2, 2]
    assert [group.get("maximize", False) for group in groups[0.0]] == [False, False, True]


@pytest.mark.parametrize("coupling", ["multi", "delta"])
def test_the_masks_of_both_tasks_are_at_the_target_and_the_network_gets_that_of_the_target_task(coupling):
    model = bert()
    method, _ = transfer(model, coupling=coupling, sparsity=0.6)
    method.before_step(4)
    shift_rows_(method)
    with method.hardened():
        hard = logits(model)
    assert method.before_step(5)
    apply_masks_(method.weights, method.masks)
    assert torch.equal(logits(model), hard)
    total = sum(weight.numel() for weight in method.weights.values())
    own = method.auxiliary_masks["other"]
    assert zeros(method.masks, method.weights) / total == pytest.approx(0.6, abs=0.005)
    assert zeros(own, method.weights) / total == pytest.approx(0.6, abs=0.005)
    assert any(not torch.equal(mask, own[name]) for name, mask in method.masks.items())
    assert method.auxiliary_masks.keys() == {"other"}


def test_without_a_mask_of_their_own_auxiliary_tasks_have_none_recorded():
    method, _ = transfer(bert(), coupling="single")
    method.before_step(0)
    method.before_step(5)
    assert method.masks
    assert method.auxiliary_masks == {}


def test_weights_alone_come_with_random_units_of_the_same_size_and_without_their_gates():
    plain, kept = bert(), []
    for seed in (1, 2):
        model = bert()
        method, _ = transfer(model, transfer="weights", seed=seed, sparsity=0.6)
        method.before_step(4)
        shift_rows_(method)
        learned = method.nesting.masks(method.units.keep("target"))
        assert method.before_step(5)
        total = sum(weight.numel() for weight in method.weights.values())
        assert zeros(method.masks, method.weights) / total == pytest.approx(0.6, abs=0.01)
        assert any(not torch.equal(mask, learned[name]) for name, mask in method.masks.items())
        masks = method.finalize()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, plain.get_parameter(name))
        kept.append(masks)
    assert any(not torch.equal(mask, kept[1][name]) for name, mask in kept[0].items())


def test_masks_alone_come_with_the_weights_that_pruning_started_from():
    model, plain = bert(), bert()
    method, _ = transfer(model, transfer="masks")
    method.before_step(4)
    shift_rows_(method)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)  # as training does
    wanted = method.nesting.masks(method.units.keep("target"))
    assert method.before_step(5)
    assert all(torch.equal(mask, wanted[name]) for name, mask in method.masks.items())
    method.before_step(6)
    with torch.no_grad():
        model.classifier.bias.add_(1.0)  # fine-tuning is not undone
    method.finalize()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name) + (name == "classifier.bias"))


@pytest.mark.parametrize(
    ("order", "changes", "stages"),
    [
        ("both_then_target", {}, (Stage(0, ("target", "other")), Stage(5, ("target",)))),
        ("target_then_both", {}, (Stage(0, ("target",)), Stage(5, ("target", "other")))),
        ("auxiliary_then_target", {}, (Stage(0, ("other",)), Stage(5, ("target",)))),
        ("both_then_target", {"coupling": "none"}, (Stage(0, ("target",)), Stage(5, ("target",)))),
        ("both_then_target", {"harden_at": 1.0}, (Stage(0, ("target", "other")),)),
        (
            "both_then_target",
            {"fine_tuning_rate": 0.3},
            (Stage(0, ("target", "other")), Stage(5, ("target",), learning_rate=0.3)),
        ),
    ],
)
def test_what_is_pruned_and_fine_tuned_on(order, changes, stages):
    method, _ = transfer(bert(), order=order, **changes)
    assert method.stages() == stages


@pytest.mark.parametrize("order", ["target_then_both", "auxiliary_then_target"])
def test_where_one_task_prunes_alone_there_is_one_row_of_gates(order):
    method, _ = transfer(bert(), order=order)
    assert method.units.learned.rows == ("",)


def test_three_tasks_have_three_rows():
    method, _ = transfer(bert(), names=("target", "one", "two"))
    assert method.units.learned.rows == ("target", "one", "two")
    method.before_step(0)
    method.before_step(5)
    assert method.auxiliary_masks.keys() == {"one", "two"}


def test_masked_fine_tuning_is_that_of_the_smaller_network():
    """Steps of AdamW with decay, as the trainer does them, on the masked network and on the one without its zeros.

    The smaller one has, of a sub-layer that went, a bias that is zero and stays so.
    """
    model = bert()
    method, _ = transfer(model, sparsity=0.8, noise=0.0)
    layers = method.nesting.split(method.units.learned.base.data)
    layers["attention_layers"][1] = layers["ffn_layers"][0] = -4.0  # whole sub-layers go
    method.before_step(4)
    masks = method.finalize()
    assert not masks["bert.encoder.layer.1.attention.output.dense.weight"].any()
    apply_masks_(dict(model.named_parameters()), masks)
    small = shrink(model, masks, TOKENS)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters()) - 2000
    labels = torch.tensor([0, 1])
    gone = {name: mask for name, mask in masks.items() if name in dict(small.named_parameters()) and not mask.any()}
    assert {name.rpartition(".")[2] for name in gone} == {"bias"}
    for network, mask in ((model, masks), (small, gone)):
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
        parameters = dict(network.named_parameters())
        for _ in range(5):
            nn.functional.cross_entropy(network(**TOKENS).logits, labels).backward()
            mask_gradients_(parameters, mask)
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            apply_masks_(parameters, mask)
    error = (logits(model) - logits(small)).abs().max() / logits(small).abs().max()
    assert error < 1e-9


def test_fine_tuning_computes_with_the_units_that_are_left():
    model = bert()
    method, _ = transfer(model, sparsity=0.6)
    seen, projection = [], model.bert.encoder.layer[0].output.dense
    projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    for step in (4, 5):
        method.before_step(step)
        logits(model)
    method.finalize()
    logits(model)
    left = int(method.masks["bert.encoder.layer.0.output.dense.weight"].any(dim=0).sum())
    assert 0 < left < 20
    assert seen == [20, left, 20]


def test_the_log_names_the_task_whose_gates_were_not_trained_to_the_target(caplog):
    with caplog.at_level(logging.WARNING, "pruneexp"):
        method, _ = transfer(bert(), coupling="multi", noise=0.0)
        method.before_step(0)
        with torch.no_grad():
            for row in method.nesting.split(method.units.learned.own["target"]).values():
                row[:] = -2.2
        method.before_step(5)
    assert "the gates of other expect a sparsity of 0.1929" in caplog.text
    assert "the gates of target expect a sparsity of 0.8" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": Unstructured()}, r"pattern=Unstructured: this method has gates on whole units"),
        ({"delta_penalty": -1.0}, r"method\.delta_penalty=-1\.0: must not be negative"),
        ({"fine_tuning_rate": 0.0}, r"method\.fine_tuning_rate=0\.0: must be positive, or null"),
        (
            {"coupling": "none", "order": "target_then_both"},
            r"method\.order=target_then_both: needs the auxiliary tasks, which method\.coupling=none leaves out",
        ),
        (
            {"order": "auxiliary_then_target", "names": ("target",)},
            r"method\.order=auxiliary_then_target: there is no auxiliary task; add auxiliary=",
        ),
        (
            {"order": "auxiliary_then_target", "names": ("target", "one", "two")},
            r"method\.coupling=delta: with several auxiliary tasks .* take method\.coupling=single",
        ),
        ({"order": "target_then_both", "harden_at": 1.0}, r"method\.harden_at=1\.0: leaves no step for fine-tuning"),
        ({"harden_at": 0.0}, r"method\.harden_at=0\.0: must be in \(0, 1\]"),
        ({"gate_rate": 0.0}, r"method\.gate_rate=0\.0: must be positive"),
        (
            {"sparsity": 0.999, "pattern": Transformer(units=["heads", "ffn"], norm="l2")},
            r"sparsity=0\.999: whole units",
        ),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        transfer(bert(), **changes)


def test_without_auxiliary_tasks_the_log_says_that_nothing_is_coupled(caplog):
    with caplog.at_level(logging.WARNING, "pruneexp"):
        method, _ = transfer(bert(), names=("target",))
    assert "method.coupling=delta: there is no auxiliary task, the target prunes alone" in caplog.text
    assert method.units.learned.rows == ("",)
