"""CoFi: what the gates do in a forward pass, what they cost, and what they leave behind."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pruneexp.hard_concrete import HardConcrete
from pruneexp.masks import apply_masks_, zeros
from pruneexp.methods.base import Setting
from pruneexp.methods.cofi import CoFi
from pruneexp.patterns import Unstructured
from pruneexp.schedules import Constant, Polynomial, Timeline
from pruneexp.structured import Channel, Structured, Transformer
from shared.small_models import START, TOKENS, UNITS, bert

TASK = SimpleNamespace(names=("target",), current="target")


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.branch, self.branch_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.plain = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.branch_norm(self.branch(x))).relu()
        return self.head(self.plain(x).relu().mean((2, 3)))


def convnet():
    torch.manual_seed(0)
    model = ConvNet().double().eval()
    for norm in (model.norm, model.branch_norm):
        for tensor in (norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
    return model


IMAGES = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def transformer(units=None):
    return Transformer(units=units or UNITS, norm="l2")


def make(pattern=None, *, schedule=None, exclude=("head", "embeddings"), **changes):
    options = {"sparsity": 0.5, "start": {**START, "channels": 0.5}, "noise": 1.0, "limit": 100.0, "harden_at": 1.0}
    options |= {"gate_rate": 0.1, "multiplier_rate": 0.1}
    return CoFi(
        pattern=pattern or transformer(),
        schedule=schedule or Constant(0.0),
        exclude=list(exclude),
        gate=HardConcrete(temperature=2 / 3, low=-0.1, high=1.1, sharpness=0.8),
        **{**options, **changes},
    )


def cofi(model, pattern=None, *, inputs=TOKENS, seed=1, **changes):
    method = make(pattern, **changes)
    method.setup(model, Setting(task=TASK, batches=[{"inputs": inputs}], timeline=Timeline(5, 10), seed=seed))
    return method


def logits(model, inputs=TOKENS):
    with torch.no_grad():
        return model(**inputs).logits if isinstance(inputs, dict) else model(inputs)


def gated_by_hand(model, values):
    """The paper's form: gates on the activations of a plain model, gates by group as CoFi's own are named."""
    for index, layer in enumerate(model.bert.encoder.layer):
        heads = values[f"bert.encoder.layer.{index}.attention.output.dense.weight"].repeat_interleave(4)
        units = values[f"bert.encoder.layer.{index}.output.dense.weight"]
        for module, inner, outer in (
            (layer.attention.output.dense, heads, values["attention_layers"][index]),
            (layer.output.dense, units, values["ffn_layers"][index]),
        ):
            module.register_forward_pre_hook(lambda _, args, inner=inner: (args[0] * inner,))
            module.register_forward_hook(lambda _, args, output, outer=outer: output * outer)
    return model


def test_a_training_pass_computes_with_gates_on_heads_units_and_sub_layers():
    model = bert().train()
    method = cofi(model, start={**START, "attention_layers": 0.0, "ffn_layers": 0.0})
    method.before_step(0)
    got = logits(model)
    values = {name: value.detach().clone() for name, value in method.units.gates.values.items()}
    assert any(0 < value < 1 for value in values["ffn_layers"].tolist() + values["attention_layers"].tolist())
    assert torch.allclose(got, logits(gated_by_hand(bert(), values)))


def test_a_gate_on_a_hidden_dimension_scales_all_that_is_added_to_the_stream_and_every_normalised_one():
    model = bert().train()
    method = cofi(model, transformer(["hidden"]), start={"hidden": 0.0})
    method.before_step(0)
    got = logits(model)
    z = method.units.gates.values["hidden"].detach().clone()
    assert 0 in z
    plain = bert()
    embeddings = plain.bert.embeddings
    adding = [embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings]
    adding += [
        part for layer in plain.bert.encoder.layer for part in (layer.attention.output.dense, layer.output.dense)
    ]
    for module in (*adding, *(module for module in plain.modules() if isinstance(module, nn.LayerNorm))):
        module.register_forward_hook(lambda _, args, output: output * z)
    assert torch.allclose(got, logits(plain))


def test_what_goes_with_a_hidden_dimension_is_zeroed_and_not_counted():
    model = bert()
    method = cofi(model, transformer(["hidden"]), start={"hidden": 0.5}, sparsity=0.5)
    method.before_step(0)
    masks = method.finalize()
    apply_masks_(dict(model.named_parameters()), masks)
    beside = {"word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"}
    assert {name.split(".")[-2] for name in method.companions} == beside
    assert not set(method.companions) & set(method.weights)
    gone = model.bert.embeddings.LayerNorm.weight == 0
    assert gone.sum() == 6
    assert not model.bert.embeddings.word_embeddings.weight[:, gone].any()
    assert not model.bert.encoder.layer[2].output.LayerNorm.bias[gone].any()
    assert not model.bert.encoder.layer[1].intermediate.dense.weight[:, gone].any()
    stream = model.bert(**TOKENS, output_hidden_states=True).hidden_states
    assert not torch.stack(stream)[..., gone].any()
    assert sum(weight.numel() for weight in method.weights.values()) == 3 * (4 * 144 + 12 + 20 * 24 + 12)
    # Of a layer: six columns of width 12 three times and 20, six rows of 12 and of 20, and two biases of six.
    assert zeros(masks, method.weights) == 3 * 6 * (3 * 12 + 20 + 12 + 20 + 2)


def test_all_processes_draw_the_same_and_each_pass_and_step_draws_anew():
    outputs = {}
    for rank in (0, 1):
        model = bert().train()
        method = cofi(model)
        for step in (3, 4):
            method.before_step(step)
            torch.manual_seed(rank)
            outputs[rank, step] = torch.stack([logits(model), logits(model)])
    assert torch.equal(outputs[0, 3], outputs[1, 3])
    assert torch.equal(outputs[0, 4], outputs[1, 4])
    drawn = [*outputs[0, 3], *outputs[0, 4]]
    assert all(not torch.equal(one, other) for index, one in enumerate(drawn) for other in drawn[:index])


def test_evaluation_computes_with_cofis_rule():
    """In each layer round(units - sum P) zeros, a sub-layer alone; the others sigmoid(1.2 log alpha)."""
    model = bert()
    method = cofi(model, start={**START, "attention_layers": -2.3})
    method.before_step(0)
    got = logits(model)
    values = {}
    for name, row in method.units.nesting.split(method.units.learned.log_alpha().detach()).items():
        log_alpha = row.tolist()
        openness = [1 / (1 + math.exp(-(a + 2 / 3 * math.log(11)))) for a in log_alpha]
        soft = [1 / (1 + math.exp(-1.2 * a)) for a in log_alpha]
        if name.endswith("_layers"):
            soft = [value if p > 0.5 else 0.0 for value, p in zip(soft, openness, strict=True)]
        else:
            for unit in sorted(range(len(soft)), key=soft.__getitem__)[: round(len(soft) - sum(openness))]:
                soft[unit] = 0.0
        values[name] = torch.tensor(soft, dtype=torch.float64)
    assert 0 in values["attention_layers"]
    assert any(0 in value for name, value in values.items() if name.endswith("weight"))
    assert torch.allclose(got, logits(gated_by_hand(bert(), values)), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_there_are_no_gates_before_the_schedule_begins(training):
    model = bert().train(training)
    method = cofi(model, schedule=Polynomial(begin=0.5, end=1.0, power=1.0))
    dense = logits(bert())
    assert torch.equal(logits(model), dense)
    method.before_step(4)
    assert torch.equal(logits(model), dense)
    assert (method.penalty(), method.sparsity(), method.metrics()) == (0.0, 0.0, {})
    method.before_step(6)
    assert not torch.equal(logits(model), dense)


def test_the_penalty_is_the_lagrangian_of_expected_sparsity_and_scheduled_target():
    method = cofi(bert(), schedule=Polynomial(begin=0.0, end=1.0, power=1.0), noise=0.0)
    with torch.no_grad():
        method.units.lagrangians[""].multipliers.copy_(torch.tensor([-3.0, 2.0]))
    method.before_step(3)
    p = {kind: 1 / (1 + math.exp(-(START[kind] - 2 / 3 * math.log(1 / 11)))) for kind in UNITS}
    attention = p["attention_layers"] * (p["heads"] * 3 * (4 * 4 * 12 + 12) + 12)
    ffn = p["ffn_layers"] * (p["ffn"] * 20 * 25 + 12)
    expected = 1 - (attention + ffn) / (4 * (144 + 12) + 20 * 25 + 12)
    gap = expected - 0.5 * 3 / 9
    assert method.penalty().item() == pytest.approx(-3 * gap + 2 * gap**2, rel=1e-5)
    assert method.metrics()["gates/expected_sparsity"] == pytest.approx(expected, rel=1e-5)
    assert method.metrics()["gates/open/heads"] == pytest.approx(p["heads"], rel=1e-5)


def test_log_alpha_gets_the_gradient_of_finite_differences_through_network_and_penalty():
    model = bert().train()
    method = cofi(model)
    method.units.learned.base.data = method.units.learned.base.data.double()
    with torch.no_grad():
        method.units.lagrangians[""].multipliers.copy_(torch.tensor([-3.0, 2.0]))
    method.before_step(0)
    uniform = torch.rand(
        len(method.units.learned.base), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    learned = method.units.learned
    learned.sample = lambda row: learned.distribution.sample(learned.log_alpha(row), uniform)

    def loss():
        return model(**TOKENS).logits.square().sum() + method.penalty()

    loss().backward()
    log_alpha = method.units.learned.base
    assert method.units.lagrangians[""].multipliers.grad.abs().min() > 0
    for index in (0, 3, 5, 10, 12, 14, 20, 40, 60):
        sides = []
        for shift in (1e-6, -2e-6):
            log_alpha.data[index] += shift
            with torch.no_grad():
                sides.append(loss())
        log_alpha.data[index] += 1e-6
        slope = (sides[0] - sides[1]) / 2e-6
        assert log_alpha.grad[index].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("build", "pattern", "inputs", "sparsity"),
    [
        *((bert, transformer(), TOKENS, sparsity) for sparsity in (0.05, 0.6, 0.9, 0.97)),
        (bert, transformer(["attention_layers", "ffn"]), TOKENS, 0.6),
        (bert, transformer(["heads", "ffn"]), TOKENS, 0.6),
        *((bert, transformer([*UNITS, "hidden"]), TOKENS, sparsity) for sparsity in (0.05, 0.6, 0.9)),
        (bert, transformer(["heads", "hidden"]), TOKENS, 0.6),
        *((convnet, Channel(norm="l2", gate=gate), IMAGES, 0.6) for gate in ("norm", "filter")),
        (convnet, Structured(units=UNITS, norm="l2", gate="norm"), IMAGES, 0.3),
    ],
)
def test_the_plain_model_computes_what_the_hard_gates_did(build, pattern, inputs, sparsity):
    model = build()
    method = cofi(model, pattern, inputs=inputs, sparsity=sparsity)
    method.before_step(0)
    with method.hardened():
        hard = logits(model, inputs)
    assert not torch.equal(hard, logits(build(), inputs))
    said = method.sparsity()
    masks = method.finalize()
    apply_masks_(dict(model.named_parameters()), masks)
    assert torch.equal(logits(model, inputs), hard)
    assert set(model.state_dict()) == set(build().state_dict())
    total = sum(weight.numel() for weight in method.weights.values())
    assert zeros(masks, method.weights) == round(said * total) == round(method.sparsity() * total)


def test_closed_sub_layers_leave_nothing_but_the_residual_path():
    model = bert()
    method = cofi(model, sparsity=0.8, noise=0.0)
    layers = method.units.nesting.split(method.units.learned.base.data)
    layers["attention_layers"][1] = layers["ffn_layers"][0] = -4.0
    method.before_step(0)
    masks = method.finalize()
    for gone in ("layer.1.attention.output.dense", "layer.0.output.dense"):
        assert not masks[f"bert.encoder.{gone}.weight"].any()
        assert not masks[f"bert.encoder.{gone}.bias"].any()
    assert not masks["bert.encoder.layer.1.attention.self.value.bias"].any()
    assert not masks["bert.encoder.layer.0.intermediate.dense.weight"].any()


def test_units_closed_early_stay_closed_and_training_goes_on_with_plain_weights():
    model = bert().train()
    method = cofi(model, harden_at=0.5)
    method.before_step(4)
    with method.hardened():
        hard = logits(model)
    assert method.before_step(5)
    masks = dict(method.masks)
    apply_masks_(method.weights, masks)  # as the trainer does
    assert torch.equal(logits(model), hard)
    assert method.penalty() == 0.0
    model(**TOKENS).logits.sum().backward()
    assert method.units.learned.base.grad is None
    assert not method.before_step(6)
    final = method.finalize()
    assert all(torch.equal(mask, masks[name]) for name, mask in final.items())
    assert torch.equal(logits(model), hard)


def test_a_sparsity_of_zero_leaves_the_dense_model():
    model = bert().train()
    method = cofi(model, sparsity=0.0, harden_at=0.5)
    assert not any(method.before_step(step) for step in range(10))
    assert torch.equal(logits(model), logits(bert()))
    assert method.finalize() == {}
    assert torch.equal(logits(model), logits(bert()))


def test_kept_units_are_scaled_by_their_value_without_noise():
    model = convnet()
    method = cofi(model, Channel(norm="l2", gate="norm"), inputs=IMAGES, noise=0.0)
    method.before_step(0)
    masks = method.finalize()
    scale = 1 / (1 + math.exp(-1.2 * 0.5))
    kept = masks["norm.weight"]
    assert torch.allclose(model.norm.weight[kept], scale * convnet().norm.weight[kept], rtol=1e-6)
    assert torch.equal(model.stem.weight[kept], convnet().stem.weight[kept])


def test_the_log_tells_when_the_gates_were_not_trained_to_the_target(caplog):
    with caplog.at_level(logging.WARNING, "pruneexp"):
        method = cofi(bert(), sparsity=0.5, noise=0.0)
        method.before_step(0)
        method.finalize()
        assert "expect a sparsity of 0.1929" in caplog.text
        assert "raise method.multiplier_rate" in caplog.text
        assert "sparsity=0.5000: the masks of the gates are at 0.5106, since units go as a whole" in caplog.text
        caplog.clear()
        method = cofi(bert(), sparsity=0.5, noise=0.0)
        with torch.no_grad():
            for name, row in method.units.nesting.split(method.units.learned.base).items():
                if name.endswith("layers"):
                    row[:] = 4.6
                else:
                    row[:] = -0.04 - 2 / 3 * math.log(11)  # P = 0.49, and 24 of 1,136 weights belong to sub-layers
        method.before_step(0)
        assert method.metrics()["gates/expected_sparsity"] == pytest.approx(0.5, abs=0.005)
        method.finalize()
        assert "expect a sparsity" not in caplog.text


def test_a_layer_that_is_excluded_leaves_the_sub_layers_of_others():
    method = cofi(bert(), exclude=["embeddings", "head", "bert.encoder.layer.1.intermediate.dense.weight"])
    counts = {name: group.unit_count for name, group in method.groups.items()}
    assert (counts["attention_layers"], counts["ffn_layers"]) == (3, 2)
    assert "bert.encoder.layer.1.output.dense.weight" not in counts
    outer = method.units.nesting.split(method.units.nesting.holder)["bert.encoder.layer.2.output.dense.weight"]
    assert outer.unique().tolist() == [3 + 3 * 3 + 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pattern": Unstructured()},
            r"pattern=Unstructured: this method has gates on whole units; take pattern=structured",
        ),
        ({"gate_rate": 0.0}, r"method\.gate_rate=0\.0: must be positive"),
        ({"multiplier_rate": -1.0}, r"method\.multiplier_rate=-1\.0: must be positive"),
        ({"noise": -1.0}, r"method\.noise=-1\.0: must not be negative"),
        ({"limit": 1.0}, r"method\.limit=1\.0: must be above 1"),
        ({"harden_at": 0.0}, r"method\.harden_at=0\.0: must be in \(0, 1\]"),
        ({"start": {"heads": "open"}}, r"method\.start\.heads=open: want a number"),
        ({"start": {"heads": 1.0}}, r"method\.start=.*: has no number for attention_layers"),
        ({"harden_at": 0.5, "schedule": Polynomial(0.0, 0.9, 1.0)}, r"reaches a sparsity of only 0\.25 of 0\.5 until"),
        (
            {"pattern": transformer(["hidden"]), "exclude": ["head", "embeddings", "*.query.weight"]},
            r"exclude: bert\.encoder\.layer\.0\.attention\.self\.query\.weight reads or writes hidden dimensions",
        ),
        ({"sparsity": 0.99, "pattern": transformer(["heads", "ffn"])}, r"sparsity=0\.99: whole units reach 0\.7941 at"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        cofi(bert(), **changes)


def test_methods_that_rank_units_refuse_units_in_units():
    from pruneexp.budgets import Global
    from pruneexp.methods.magnitude import Magnitude

    options = {"sparsity": 0.5, "budget": Global(), "schedule": Constant(0.0), "exclude": [], "update_every": 1}
    for pattern in (transformer(), Structured(units=UNITS, norm="l2", gate="norm")):
        with pytest.raises(ValueError, match=r"heads are part of attention_layers, and this method ranks units"):
            Magnitude(pattern=pattern, **options)
