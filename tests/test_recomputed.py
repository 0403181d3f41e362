"""Effective weights that are computed again in the backward pass: the same numbers, and nothing held in between."""

import functools
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from pruneexp.recomputed import Recomputed
from pruneexp.soft_mask import soft_masked


class Watched(nn.Module):
    """w -> m(w) w, recomputed or not, with the products and the calls noted."""

    def __init__(self, layer, recompute):
        super().__init__()
        self.recomputed = Recomputed(layer)
        if not recompute:
            self.recomputed.remove()
        self.products = []
        self.calls = 0

    def product(self, weight, squared, temperature, memory=torch.empty_like):
        self.calls += 1
        return soft_masked(weight, squared, temperature, memory=memory)

    def forward(self, weight):
        squared, temperature = torch.tensor([[0.01]]), torch.tensor([[0.002]])
        product = self.recomputed(self.product, weight, squared, temperature)
        self.products.append(weakref.ref(product))
        return product


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x).relu())


class Converted(nn.Sequential):
    def forward(self, x):
        return super().forward(x.bfloat16()).float()


class Part(nn.Module):
    """Has a weight that is not dense in memory."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 8)
        self.layer.weight = nn.Parameter(torch.randn(8, 12)[:, ::2])

    def forward(self, x):
        return self.layer(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False)


IMAGES, TEXT = (3, 4, 5, 5), (3, 5, 6)
NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2, bias=False)), TEXT),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1)), IMAGES),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1), IMAGES),
    "transposed": (lambda: nn.ConvTranspose2d(4, 2, 3), IMAGES),
    "channels last": (lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), IMAGES),
    "16 bits": (lambda: Converted(nn.Linear(6, 8).bfloat16()), TEXT),
    "a part of a larger weight": (Part, TEXT),
    "the same layer twice": (Twice, TEXT),
    "attention": (Attention, TEXT),
    "under a checkpoint": (Checkpointed, TEXT),
}


def watched(build, *, recompute):
    torch.manual_seed(0)
    network = build()
    parametrizations = []
    for module in list(network.modules()):
        for leaf in ("weight", "in_proj_weight"):
            if isinstance(module._parameters.get(leaf), nn.Parameter):
                parametrizations.append(Watched(module, recompute))
                parametrize.register_parametrization(module, leaf, parametrizations[-1])
                parametrizations[-1].products.clear()  # registering computes one
                parametrizations[-1].calls = 0
    return network, parametrizations


def loss_of(network, shape, seed=1):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    return network(x).square().mean(), x


def gradients(network, shape):
    loss, x = loss_of(network, shape)
    loss.backward()
    return [x.grad, *(parameter.grad for parameter in network.parameters())]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_the_same_to_the_last_bit(name, autocast):
    build, shape = NETWORKS[name]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = gradients(watched(build, recompute=False)[0], shape)
        found = gradients(watched(build, recompute=True)[0], shape)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["linear", "convolution", "the same layer twice"])
@pytest.mark.parametrize("recompute", [False, True])
def test_no_product_is_held_between_the_passes(name, recompute):
    build, shape = NETWORKS[name]
    network, parametrizations = watched(build, recompute=recompute)
    loss, _ = loss_of(network, shape)
    held = [product() is not None for mask in parametrizations for product in mask.products]
    assert held == [not recompute] * len(held)
    before = sum(mask.calls for mask in parametrizations)
    loss.backward()
    again = sum(mask.calls for mask in parametrizations) - before
    assert again == (len(held) if recompute else 0)


def test_the_gradient_takes_the_memory_of_the_product():
    network, (mask,) = watched(functools.partial(nn.Linear, 6, 8), recompute=True)
    addresses = []
    plain = mask.product

    def noted(*arguments, **keywords):
        product = plain(*arguments, **keywords)
        addresses.append(product.data_ptr())
        return product

    mask.product = noted
    loss_of(network, TEXT)[0].backward()
    assert network.parametrizations.weight.original.grad.data_ptr() == addresses[1]


def test_a_graph_that_is_kept_gives_its_gradients_twice():
    network, _ = watched(NETWORKS["convolution"][0], recompute=True)
    loss, x = loss_of(network, IMAGES)
    first = torch.autograd.grad(loss, [x, *network.parameters()], retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(loss, [x, *network.parameters()])
    for before, after, again in zip(kept, first, second, strict=True):
        assert torch.equal(before, after)
        assert torch.equal(before, again)


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_gradients_of_a_gradient_are_the_same(name):
    """As for a penalty on the gradient of the input; the weights' own gradients are computed before."""
    results = []
    for recompute in (False, True):
        build, shape = NETWORKS[name]
        network, _ = watched(build, recompute=recompute)
        loss, x = loss_of(network, shape)
        of_input, *_ = torch.autograd.grad(loss, [x, *network.parameters()], create_graph=True)
        of_input.square().sum().backward()
        results.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(results[0]) >= 2
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_an_input_that_was_changed_in_place_is_noticed():
    network, _ = watched(functools.partial(nn.Linear, 6, 8), recompute=True)
    x = torch.randn(2, 6)
    loss = network(x).sum()
    x.mul_(2)
    with pytest.raises(RuntimeError, match=r"shape \(2, 6\).*changed in place"):
        loss.backward()


def test_a_weight_that_was_changed_in_place_is_noticed():
    network, _ = watched(functools.partial(nn.Linear, 6, 8), recompute=True)
    loss, _ = loss_of(network, TEXT)
    with torch.no_grad():
        network.parametrizations.weight.original.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_are_gone_after_an_error_and_after_removal():
    network, (mask,) = watched(functools.partial(nn.Linear, 6, 8), recompute=True)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network(torch.randn(2, 5))
    y = torch.randn(3, requires_grad=True).exp()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # the message where no hooks are
        y.mul_(2).sum().backward()
    mask.recomputed.remove()
    network(torch.randn(2, 6)).sum().backward()
    assert mask.calls == 2


def test_compiled_it_is_one_graph_and_gives_the_same():
    expected = gradients(watched(NETWORKS["linear"][0], recompute=False)[0], TEXT)
    network, _ = watched(NETWORKS["linear"][0], recompute=True)
    loss_fn = torch.compile(network, backend="aot_eager", fullgraph=True)
    found = gradients(loss_fn, TEXT)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
