"""Networks whose errors cannot hide: random weights, norms with statistics, scales and shifts that all matter."""

import copy
import random

import pytest
import torch
from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm,)
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def randomised():
    """Gives every norm of a network random statistics, gamma and beta, in place."""

    def randomise(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, NORMS):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        return network.eval()

    return randomise


@pytest.fixture
def difference():
    """The largest difference of two networks' outputs in float64, relative to the largest output."""

    def compute(left: nn.Module, right: nn.Module, x: torch.Tensor) -> float:
        with torch.no_grad():
            a, b = (copy.deepcopy(network).double().eval()(x.double()) for network in (left, right))
        return ((a - b).abs().max() / a.abs().max()).item()

    return compute


@pytest.fixture
def channel_masks():
    """Masks that prune the same channels of all layers of one width, and zero them: layers added to each other have
    one width, so the dead channels meet. Returns the masks and width -> channels alive.
    """

    def mask(network: nn.Module, rate: float, outputs: int) -> tuple[dict[str, torch.Tensor], dict[int, int]]:
        masks, dead = {}, {}
        for name, module in network.named_modules():
            if not isinstance(module, (*LAYERS, *NORMS)):
                continue
            width = len(module.weight)
            if width == outputs:
                continue
            if width not in dead:
                dead[width] = random.Random(width).sample(range(width), round(rate * width))
            for key, parameter in module.named_parameters(recurse=False):
                kept = torch.ones(width, dtype=torch.bool)
                kept[dead[width]] = False
                masks[f"{name}.{key}"] = kept.reshape(-1, *[1] * (parameter.dim() - 1))
                parameter.data *= masks[f"{name}.{key}"]
        return masks, {width: width - len(channels) for width, channels in dead.items()}

    return mask


def _lively(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif isinstance(module, (nn.Conv2d, nn.Linear)):  # so that outputs depend on inputs, however deep the network
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
    return network.eval()


def _zeroed(network: nn.Module, keep: dict[str, torch.Tensor]) -> nn.Module:
    """A float64 copy with zero weights for ignored inputs, one input channel after the other."""
    network = copy.deepcopy(network).eval().double()
    for name, mask in keep.items():
        layer = network.get_submodule(name)
        groups = getattr(layer, "groups", 1)
        for channel in (~mask).nonzero().flatten().tolist():
            rows, columns = layer.weight.shape[0] // groups, layer.weight.shape[1]
            group = channel // columns
            layer.weight.data[group * rows : (group + 1) * rows, channel % columns] = 0
    return network


@pytest.fixture(scope="session")
def lively():
    """Gives batch normalisation random statistics and parameters, so that no channel is like another."""
    return _lively


@pytest.fixture(scope="session")
def zeroed():
    return _zeroed
