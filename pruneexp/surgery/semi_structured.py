"""2:4 sparse linear layers in torch's semi-structured format, for the tensor cores of NVIDIA GPUs since Ampere.

Of every four consecutive inputs of an output two weights at most are not zero; the format stores these and where they
are (https://docs.pytorch.org/docs/stable/sparse.html#sparse-semi-structured-tensors). It takes half precision.
"""

import copy

import torch
from torch import Tensor, nn

from pruneexp.surgery.verify import SurgeryError

DTYPE = torch.bfloat16
ROWS, COLUMNS = 32, 64
"""What the kernels want the sides of a weight to be multiples of, in half precision (torch's CUTLASS kernels)."""
CAPABILITY = (8, 0)
"""The compute capability of Ampere."""


def check_gpu(device: torch.device) -> None:
    """Raises SurgeryError unless the device has kernels for the format."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        raise SurgeryError("--semi-structured: needs an NVIDIA GPU of Ampere or later (device=cuda); leave it out here")


def two_of_four(network: nn.Module) -> list[str]:
    """Names of the linear layers with 2:4 sparse weights of a size that the kernels take."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return [name for name, layer in layers.items() if _fits(layer.weight)]


@torch.no_grad()
def semi_structured(network: nn.Module) -> nn.Module:
    """A copy in bfloat16 whose 2:4 sparse linear layers are in the semi-structured format; for inference only.

    Raises:
        SurgeryError: the network is on no GPU that has such kernels, or no layer is 2:4 sparse.
    """
    check_gpu(next(network.parameters()).device)
    names = two_of_four(network)
    if not names:
        raise SurgeryError(
            "--semi-structured: no linear layer is 2:4 sparse; prune with "
            "method=nm pattern.n=2 pattern.m=4 pattern.axis=input"
        )
    network = copy.deepcopy(network).to(DTYPE).eval().requires_grad_(False)
    for name in names:
        layer = network.get_submodule(name)
        sparse = torch.sparse.to_sparse_semi_structured(layer.weight.contiguous())
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return network


def _fits(weight: Tensor) -> bool:
    rows, columns = weight.shape
    if rows % ROWS or columns % COLUMNS:
        return False
    return bool((weight.reshape(-1, 4).count_nonzero(1) <= 2).all())
