"""What is called a constant is one: the same for other inputs and in every place."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from pruneexp.models.cifar_resnet import ResNet
from pruneexp.surgery.constants import constant_inputs

NETWORKS = {
    "resnet20": lambda: ResNet(blocks=3, channels=3, num_outputs=3),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=3),
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=3),
    "googlenet": lambda: torchvision.models.googlenet(num_classes=3, init_weights=False, aux_logits=False),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=3),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=3),
    "efficientnet": lambda: timm.create_model("efficientnet_b0", num_classes=3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_constants_do_not_depend_on_the_input_nor_on_the_place(name, randomised):
    network = randomised(NETWORKS[name]()).double()
    for parameter in network.parameters():
        parameter.data[torch.rand(len(parameter)) < 0.4] = 0
    reads = constant_inputs(network, lambda network: network(torch.randn(1, 3, 48, 48).double()))
    seen = {}

    def check(layer, inputs, _):
        x = inputs[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        read = reads[id(layer.weight)]
        expected = read.values[read.known].unsqueeze(1).expand_as(x[read.known])
        torch.testing.assert_close(x[read.known], expected, rtol=1e-9, atol=1e-12)
        seen[layer] = int(read.known.sum())

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(check)
    with torch.no_grad():
        network(torch.randn(2, 3, 48, 48).double())
    assert len(seen) == len(reads)
    assert sum(seen.values()) > 20  # the test would hold if nothing were called a constant
