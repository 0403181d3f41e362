"""2:4 sparse layers are recognised; what needs a GPU is computed where there is one, and refused elsewhere."""

import pytest
import torch
from torch import nn

from pruneexp.surgery.semi_structured import semi_structured, two_of_four
from pruneexp.surgery.verify import SurgeryError


def pruned(rows, columns, keep):
    """A linear layer that keeps the first `keep` of every four inputs."""
    layer = nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight *= torch.arange(columns) % 4 < keep
    return layer


def network():
    layers = [pruned(64, 64, 2), nn.ReLU(), pruned(64, 64, 3), pruned(33, 64, 2), pruned(64, 33, 1), nn.Linear(33, 2)]
    return nn.Sequential(*layers)


def test_layers_with_two_of_four_weights_and_a_size_that_kernels_take():
    assert two_of_four(network()) == ["0"]


def test_a_dead_group_of_four_counts_too():
    layer = pruned(32, 64, 1)
    layer.weight.data[0, :4] = 0
    assert two_of_four(nn.Sequential(layer)) == ["0"]


def test_without_a_gpu_it_is_refused_in_one_line():
    with pytest.raises(SurgeryError, match=r"--semi-structured: needs an NVIDIA GPU.*leave it out"):
        semi_structured(network())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_format_computes_the_same_on_a_gpu():
    dense = network()[:3].cuda()
    sparse = semi_structured(dense)
    x = torch.randn(16, 64, device="cuda", dtype=torch.bfloat16)
    expected = dense.to(torch.bfloat16)(x)
    torch.testing.assert_close(sparse(x), expected, rtol=2e-2, atol=2e-2)
    with pytest.raises(SurgeryError, match="no linear layer is 2:4 sparse"):
        semi_structured(nn.Linear(64, 64).cuda())
