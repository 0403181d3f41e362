import torch
from torch import nn
from torch.nn.utils import parametrize

from pruneexp.masks import (
    apply_masks_,
    count_to_prune,
    dense_name,
    fingerprint,
    mask_gradients_,
    mask_optimizer_state_,
    sparsity,
    stored_parameter,
    zeros,
)


def test_count_rounds_instead_of_truncating():
    assert 10 - count_to_prune(0.9, 10) == 1
    assert count_to_prune(0.0, 7) == 0
    assert count_to_prune(0.25, 10) == 2  # round half to even
    assert count_to_prune(0.999, 1000) == 999


def test_dense_names():
    assert dense_name("a.parametrizations.weight.original") == "a.weight"
    assert dense_name("parametrizations.weight.original") == "weight"
    assert dense_name("a.weight") == "a.weight"


def test_stored_parameter_is_the_one_the_optimizer_sees():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    assert stored_parameter(model, "0.weight") is model[0].parametrizations.weight.original
    assert stored_parameter(model, "1.weight") is model[1].weight


def test_masks_zero_weights_gradients_and_momentum():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    masks = {"w": torch.tensor([[True, False], [False, True]])}
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1)
    weight.square().sum().backward()
    optimizer.step()
    mask_optimizer_state_(optimizer, {"w": weight}, masks)
    mask_gradients_({"w": weight}, masks)
    apply_masks_({"w": weight}, masks)
    for tensor in (weight, weight.grad, optimizer.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg_sq"]):
        assert torch.equal(tensor != 0, masks["w"])
    # The next steps must not revive anything.
    for _ in range(3):
        optimizer.step()
    assert torch.equal(weight != 0, masks["w"])


def test_zeros_count_broadcast_masks_in_full():
    weights = {"a": torch.ones(4, 3, 2), "b": torch.ones(6)}
    masks = {"a": torch.tensor([True, False, True, False]).view(4, 1, 1), "b": torch.tensor([True] * 5 + [False])}
    assert zeros(masks, weights) == 12 + 1
    assert sparsity(masks, weights) == 13 / 30


def test_fingerprint_tells_masks_apart():
    first = {"a": torch.tensor([True, False]), "b": torch.tensor([True, True])}
    same = {"b": torch.tensor([True, True]), "a": torch.tensor([True, False])}
    other = {"a": torch.tensor([False, True]), "b": torch.tensor([True, True])}
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
