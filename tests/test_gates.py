"""Gates: what they multiply, when they are computed, and the gradient that flows through them."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from pruneexp.gates import Gates
from pruneexp.groups import Norm, Slice, SliceGroup


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def hidden_units(model, **options):
    """The hidden units: rows of the first matrix and columns of the second, scaled at the columns."""
    unit = torch.arange(4)
    rows, bias, columns = Slice("0.weight", 0, unit), Slice("0.bias", 0, unit), Slice("2.weight", 1, unit)
    options = {"gates": [columns], **options}
    return SliceGroup(
        "hidden",
        tensors=dict(model.named_parameters()),
        slices=[rows, bias, columns],
        scored=[rows],
        norm=Norm("l2"),
        **options,
    )


def attach(model, gates):
    for name, gate in gates.parametrizations.items():
        path, _, leaf = name.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(path), leaf, gate)
    gates.watch(model)


def test_a_gate_scales_what_its_unit_passes_on():
    model, inputs = network(), torch.randn(5, 3).double()
    values = torch.tensor([1.0, 0.5, 0.0, 0.25]).double()
    expected = model[2](model[1](model[0](inputs)) * values)
    attach(model, Gates([hidden_units(model)], lambda: {"hidden": values}))
    assert torch.allclose(model(inputs), expected)


def test_a_group_without_values_is_open():
    model, inputs = network(), torch.randn(5, 3).double()
    expected = model(inputs)
    attach(model, Gates([hidden_units(model)], dict))
    assert torch.equal(model(inputs), expected)


def test_values_are_computed_once_for_each_forward_pass():
    model, calls = network(), []
    group = hidden_units(model, gates=[Slice("2.weight", 1, torch.arange(4)), Slice("0.bias", 0, torch.arange(4))])

    def compute():
        calls.append(None)
        return {"hidden": torch.ones(4).double()}

    attach(model, Gates([group], compute))
    model(torch.randn(5, 3).double())
    assert len(calls) == 1
    model(torch.randn(5, 3).double())
    assert len(calls) == 2


def test_closed_units_are_off_at_their_switches_whatever_the_soft_values():
    model, inputs = network(), torch.randn(5, 3).double()
    keep = torch.tensor([True, False, True, False])
    expected = model[2](model[1](model[0](inputs)) * keep)
    switches = [Slice("2.weight", 1, torch.arange(4))]
    group = hidden_units(model, gates=[Slice("0.weight", 0, torch.arange(4))], switches=switches)
    gates = Gates([group], lambda: {"hidden": torch.full((4,), 0.5).double()})
    attach(model, gates)
    gates.closed["hidden"] = keep
    assert torch.allclose(model(inputs), expected)


def test_gradient_flows_through_the_gates_to_what_they_were_computed_from():
    model, inputs = network(), torch.randn(5, 3).double()
    group, weight = hidden_units(model), model[0].weight
    attach(model, Gates([group], lambda: {"hidden": group.scores({"0.weight": weight})[0].sigmoid()}))
    model(inputs).square().sum().backward()
    got = weight.grad.clone()

    plain = network()
    plain_weight = plain[0].weight
    scale = plain_weight.square().sum(1).sqrt().sigmoid()
    plain[2](plain[1](plain[0](inputs)) * scale).square().sum().backward()
    assert torch.allclose(got, plain_weight.grad)
    assert torch.allclose(model[2].parametrizations.weight.original.grad, plain[2].weight.grad)


def test_closing_opens_the_gates_and_stops_computing():
    model, inputs = network(), torch.randn(5, 3).double()
    expected = model(inputs)
    gates = Gates([hidden_units(model)], lambda: {"hidden": torch.zeros(4).double()})
    attach(model, gates)
    assert not model(inputs).equal(expected)
    gates.close()
    assert torch.equal(model(inputs), expected)


def test_frozen_gates_stand_in_for_the_computed_ones_beside_closed_units():
    model, inputs = network(), torch.randn(5, 3).double()
    soft, keep = torch.tensor([0.5, 0.5, 0.25, 1.0]).double(), torch.tensor([True, False, True, False])
    expected = model[2](model[1](model[0](inputs)) * soft * keep)
    gates = Gates([hidden_units(model)], lambda: {"hidden": torch.zeros(4).double()})
    attach(model, gates)
    gates.frozen["hidden"], gates.closed["hidden"] = soft, keep
    assert torch.allclose(model(inputs), expected)


def test_folding_multiplies_the_gates_into_the_parameters():
    model, values = network(), torch.tensor([1.0, 0.5, 0.0, 0.25]).double()
    gates = Gates([hidden_units(model)], lambda: {"hidden": values})
    parameters = dict(model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    gates.fold_(parameters)
    assert torch.equal(model[2].weight, before["2.weight"] * values)
    assert torch.equal(model[0].weight, before["0.weight"])
