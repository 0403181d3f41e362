"""Movement pruning: its gradient, what it keeps, and patterns whose units are more than a weight."""

import pytest
import torch
from torch import nn

from pruneexp.budgets import Global, Uniform
from pruneexp.masks import apply_masks_
from pruneexp.methods.base import Setting
from pruneexp.methods.movement import Movement
from pruneexp.patterns import NM, Block, Unstructured
from pruneexp.schedules import Constant, Timeline
from pruneexp.structured import Channel
from shared.small_models import linear


def movement(model, *, sparsity=0.5, pattern=None, budget=None, begin=0.0, **options):
    options = {"score_learning_rate": 0.1, "exclude": [], **options}
    schedule = Constant(begin)
    pattern, budget = pattern or Unstructured(), budget or Uniform()
    method = Movement(sparsity=sparsity, pattern=pattern, budget=budget, schedule=schedule, **options)
    method.setup(model, Setting(task=None, batches=[], timeline=Timeline(1, 10), seed=0))
    return method


def set_scores(method, *rows, name="weight"):
    with torch.no_grad():
        method.scores[name].values.copy_(torch.tensor(rows))


INPUT = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def test_forward_and_gradients_by_hand():
    model = linear([3.0, -1.0, 0.5, -2.0])
    method = movement(model)
    set_scores(method, [-0.1, 0.4, 0.3, -0.2])
    assert not method.before_step(0)
    assert model.weight.tolist() == [[0.0, -1.0, 0.5, 0.0]]
    model(INPUT).backward()
    # dL/dW_hat is the input: scores get it times the weight, pruned or not; weights where they are kept
    assert method.scores["weight"].values.grad.tolist() == [[3.0, -2.0, 1.5, -8.0]]
    assert method.weights["weight"].grad.tolist() == [[0.0, 2.0, 3.0, 0.0]]


def test_before_pruning_begins_scores_learn_and_all_weights_are_there():
    model = linear([3.0, -1.0, 0.5, -2.0])
    method = movement(model, begin=0.5)
    method.before_step(0)
    model(INPUT).backward()
    assert model.weight.tolist() == [[3.0, -1.0, 0.5, -2.0]]
    assert method.sparsity() == 0
    assert method.scores["weight"].values.grad.tolist() == [[3.0, -2.0, 1.5, -8.0]]


def test_the_gradient_of_a_whole_network_is_the_formula():
    """Against dL/dW_hat * W, with dL/dW_hat from a plain network that has W_hat as its weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    method = movement(model, sparsity=0.4)
    for name, scores in method.scores.items():
        scores.values.data = torch.randn(scores.values.shape, dtype=torch.float64)
        assert scores.values.shape == (1, method.weights[name].numel())
    method.before_step(0)
    inputs = torch.randn(7, 6, dtype=torch.float64)
    model(inputs).square().sum().backward()
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for index in (0, 2):
        plain[index].weight.data = model[index].weight.detach()
        plain[index].bias.data = model[index].bias.detach()
    plain(inputs).square().sum().backward()
    for index in (0, 2):
        name, effective = f"{index}.weight", plain[index].weight
        wanted = effective.grad * method.weights[name]
        assert torch.allclose(method.scores[name].values.grad.view_as(wanted), wanted, atol=1e-12)
        kept = effective != 0
        assert torch.allclose(method.weights[name].grad, effective.grad * kept, atol=1e-12)


def test_weights_that_move_away_from_zero_stay_and_the_largest_may_go():
    """The loss wants the third weight larger and the first one zero, which is the largest."""
    model = linear([3.0, -1.0, 0.5, -2.0])
    method = movement(model, begin=0.5)
    groups = [{"params": [method.weights["weight"]], "lr": 0.01}, *method.param_groups()]
    optimizer = torch.optim.SGD(groups)
    assert optimizer.param_groups[1]["lr"] == 0.1
    wanted = torch.tensor([[0.0, -2.0, 2.5, -1.0]])
    for step in range(5):
        method.before_step(step)
        (model.weight - wanted).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    method.before_step(5)
    assert (model.weight != 0).tolist() == [[False, True, True, False]]


def test_a_pruned_weight_stands_still_and_comes_back_when_its_score_does():
    model = linear([3.0, -1.0, 0.5, -2.0])
    method = movement(model)
    set_scores(method, [0.0, 1.0, 2.0, -1.0])
    method.before_step(0)
    set_scores(method, [5.0, 1.0, 2.0, -1.0])
    method.before_step(1)
    assert model.weight.tolist() == [[3.0, 0.0, 0.5, 0.0]]
    masks = method.finalize()
    assert masks["weight"].tolist() == [[True, False, True, False]]
    assert [name for name, _ in model.named_parameters()] == ["weight"]


@pytest.mark.parametrize(("budget", "kept"), [(Uniform(), (2, 2)), (Global(), (3, 1))])
def test_the_top_scores_are_those_of_each_layer_or_of_all(budget, kept):
    model = nn.Sequential(linear([1.0, 1.0, 1.0, 1.0]), linear([1.0], [1.0], [1.0], [1.0]))
    method = movement(model, budget=budget)
    set_scores(method, [5.0, 4.0, 3.0, -9.0], name="0.weight")
    set_scores(method, [-1.0, -2.0, -3.0, -4.0], name="1.weight")
    method.before_step(0)
    assert tuple(int((model[index].weight != 0).sum()) for index in (0, 1)) == kept
    assert method.sparsity() == 0.5


def test_a_block_has_one_score_the_sum_of_its_weights():
    model = linear([3.0, -1.0, 0.5, -2.0], [1.0, 1.0, 1.0, 1.0])
    method = movement(model, pattern=Block(rows=2, columns=2))
    set_scores(method, [-2.0, -1.0])
    method.before_step(0)
    assert model.weight.tolist() == [[0.0, 0.0, 0.5, -2.0], [0.0, 0.0, 1.0, 1.0]]
    model(INPUT).sum().backward()
    assert method.scores["weight"].values.grad.tolist() == [[3.0 - 2.0 + 1.0 + 2.0, 1.5 - 8.0 + 3.0 + 4.0]]


def test_the_padding_of_a_group_of_m_weights_is_pruned_before_any_weight():
    model = linear([3.0, -1.0, 0.5])
    method = movement(model, pattern=NM(n=1, m=2, axis="input", indivisible="pad"))
    set_scores(method, [-1.0, -2.0], [-7.0, 0.0])
    method.before_step(0)
    assert model.weight.tolist() == [[3.0, 0.0, 0.5]]


class Feedforward(nn.Module):
    """A convolution of three channels, normalised, and a second one that reads them."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)

    def forward(self, inputs):
        return self.last(self.norm(self.first(inputs)).relu()).mean((2, 3))


def test_a_pruned_channel_passes_nothing_on_and_its_score_goes_on_learning():
    torch.manual_seed(0)
    model, inputs = Feedforward(), torch.randn(4, 1, 5, 5)
    nn.init.normal_(model.norm.bias)
    method = Movement(
        sparsity=0.34,
        pattern=Channel(norm="l2", gate="filter"),
        budget=Uniform(),
        schedule=Constant(0.0),
        exclude=["classifier"],
        score_learning_rate=0.1,
    )
    method.setup(model, Setting(task=None, batches=[{"inputs": inputs}], timeline=Timeline(1, 10), seed=0))
    ((name, scores),) = method.scores.items()
    set_scores(method, [1.0, -1.0, 0.5], name=name)
    method.before_step(0)
    channels = model.norm(model.first(inputs))
    assert not channels[:, 1].any()
    assert channels[:, [0, 2]].any()
    (model.norm.weight * torch.tensor([1.0, 2.0, 3.0]) + model.norm.bias).sum().backward()
    weight, bias = (method.weights[f"norm.{key}"].detach() for key in ("weight", "bias"))
    assert torch.allclose(scores.values.grad[0], weight * torch.tensor([1.0, 2.0, 3.0]) + bias)
    outputs = model.eval()(inputs)
    masks = method.finalize()
    apply_masks_(dict(model.named_parameters()), masks)
    assert torch.equal(model(inputs), outputs)
    assert not model.first.weight[1].any()


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"method\.score_learning_rate=0: must be positive"):
        movement(linear([1.0, 2.0]), score_learning_rate=0)
