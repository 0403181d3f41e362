"""How the first layers of ImageNet networks are changed for small images and other numbers of channels.

ImageNet networks divide the side of the image by 32 before the classifier, which leaves one pixel of a 32x32 image.
The `small` stem divides it by 8, so that 32x32 images end as 4x4 maps:

* ResNets: a 3x3 convolution of stride 1 first and no max-pool, the stem of He et al. 2016 (arXiv:1512.03385), section
  4.2, as in most published CIFAR runs of ResNet-18 and ResNet-50;
* MobileNets: the first two convolutions of stride 2 get stride 1, weights unchanged. v1 and v2 then have, like
  v3-small, three halvings left; the common CIFAR versions of v2 do the same.
"""

import logging

import torch
from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.errors import first_line

logger = logging.getLogger("pruneexp")

STEMS = ("auto", "small", "imagenet")

SMALL_IMAGE = 64
"""Pixels a side up to which `stem=auto` means `small`; ours: CIFAR (32) and Tiny ImageNet (64) are below it."""


def check_stem(stem: str) -> None:
    """Raises ValueError if there is no such stem."""
    if stem not in STEMS:
        raise ValueError(f"model.stem={stem}: no such stem; choose one of {', '.join(STEMS)}")


def choose_stem(stem: str, info: DataInfo) -> str:
    """`small` or `imagenet`: what was asked for, or for `auto` what suits the images' size. The log says which."""
    suitable = "small" if info.image_size <= SMALL_IMAGE else "imagenet"
    chosen = suitable if stem == "auto" else stem
    logger.info("model.stem=%s: the %s stem for images of %d pixels a side", stem, chosen, info.image_size)
    return chosen


def small_resnet_stem_(network: nn.Module) -> None:
    """A 3x3 convolution of stride 1 in place of a ResNet's 7x7 one of stride 2, and no max-pool."""
    old = network.conv1
    network.conv1 = new_convolution(old.in_channels, old.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()


def small_mobilenet_stem_(network: nn.Module) -> None:
    """Stride 1 for the first two convolutions of stride 2."""
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for convolution in strided[:2]:
        convolution.stride = (1, 1)


def set_input_channels_(network: nn.Module, channels: int) -> None:
    """A newly initialised first convolution for so many input channels, where it has another number."""
    name, old = next((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = new_convolution(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)


def new_convolution(in_channels: int, out_channels: int, **shape: object) -> nn.Conv2d:
    """A convolution as torchvision initialises it: Kaiming normal, fan-out (He et al. 2015, arXiv:1502.01852)."""
    convolution = nn.Conv2d(in_channels, out_channels, **shape)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


@torch.no_grad()
def check_fit(network: nn.Module, info: DataInfo, name: str) -> None:
    """Raises ValueError if the network cannot take one image of such data. Leaves it in train mode."""
    image = torch.zeros(1, info.channels, info.image_size, info.image_size, device=next(network.parameters()).device)
    try:
        network.eval()(image)
    except (RuntimeError, AssertionError, ValueError) as error:
        size = f"{info.channels}x{info.image_size}x{info.image_size}"
        raise ValueError(
            f"model.name={name}: takes no image of {size} ({first_line(error)}); choose another model "
            "or set dataset.image_size"
        ) from error
    network.train()
