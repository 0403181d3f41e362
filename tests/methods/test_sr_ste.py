import pytest
import torch
from torch import nn

from pruneexp.budgets import Uniform
from pruneexp.methods.base import Setting
from pruneexp.methods.sr_ste import SRSTE
from pruneexp.patterns import NM
from pruneexp.schedules import Constant, Timeline


def sr_ste(model, decay=0.5):
    pattern = NM(n=1, m=2, axis="input", indivisible="dense")
    method = SRSTE(sparsity=0.5, pattern=pattern, budget=Uniform(), schedule=Constant(0.0), exclude=[], decay=decay)
    method.setup(model, Setting(task=None, batches=[], timeline=Timeline(1, 10), seed=0))
    return method


def test_forward_and_gradient_by_hand():
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -1.0, 0.5, -2.0]]))
    method = sr_ste(model)
    assert not method.before_step(0)
    assert model.weight.tolist() == [[3.0, 0.0, 0.0, -2.0]]
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).backward()
    # the straight-through gradient is the input; pruned weights also get 0.5 w
    assert method.weights["weight"].grad.tolist() == [[1.0, 2.0 - 0.5, 3.0 + 0.25, 4.0]]


def test_a_pruned_weight_can_come_back():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.5]]))
    method = sr_ste(model)
    method.before_step(0)
    with torch.no_grad():
        method.weights["weight"].copy_(torch.tensor([[0.2, 0.5]]))
    method.before_step(1)
    assert model.weight.tolist() == [[0.0, 0.5]]
    assert method.sparsity() == 0.5
    assert method.finalize()["weight"].tolist() == [[False, True]]


def test_a_negative_decay_is_refused():
    with pytest.raises(ValueError, match=r"method\.decay=-1"):
        sr_ste(nn.Linear(2, 1), decay=-1.0)
