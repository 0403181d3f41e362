"""Networks with statistics as after training, and the masked network computed in another way than the package does."""

import copy

import pytest
import torch
from torch import nn


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
