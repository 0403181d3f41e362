"""Networks whose errors cannot hide: random weights, norms with statistics, gammas and betas that all matter."""

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
