"""MobileNet-v1: Howard et al. 2017, "MobileNets" (arXiv:1704.04861), table 1.

A 3x3 convolution of stride 2, then 13 pairs of a depthwise 3x3 and a pointwise 1x1 convolution, each followed by batch
normalisation and a ReLU; mean over the map, a linear classifier. 4.2 M parameters at width 1 with 1000 classes.

Where we differ: ReLU6 instead of the ReLU of the paper's figure 3, as in the authors' released code and weights;
Kaiming initialisation, as torchvision's MobileNet-v2. For 224x224 images the padding is symmetric (PyTorch), not to the
right and bottom (TensorFlow's SAME).
"""

from torch import Tensor, nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.stems import check_stem, choose_stem, new_convolution, small_mobilenet_stem_

FIRST_CHANNELS = 32
PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels after the pointwise convolution, stride of the depthwise one (table 1; its last stride, 2, is a misprint:
the map stays 7x7)."""

MIN_CHANNELS = 8  # as in the authors' code: no layer gets narrower


class MobileNetV1(Model):
    """MobileNet-v1 of a given width, randomly initialised."""

    kind = "image"

    def __init__(self, *, width: float, stem: str, checkpoint: str | None) -> None:
        """width: the multiplier of all channel counts (the paper's alpha), > 0. stem: see `pruneexp.models.stems`.

        Raises:
            ValueError: no such width or stem.
        """
        super().__init__(checkpoint=checkpoint)
        if width <= 0:
            raise ValueError(f"model.width={width}: must be positive; the paper has 0.25, 0.5, 0.75 and 1.0")
        check_stem(stem)
        self.width, self.stem = width, stem

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network; there is no pretrained one to download (timm has one: `model=timm`)."""
        network = MobileNet(width=self.width, channels=info.channels, num_outputs=info.num_outputs)
        if choose_stem(self.stem, info) == "small":
            small_mobilenet_stem_(network)
        return network


class MobileNet(nn.Module):
    """Images (batch, channels, height, width) -> logits (batch, num_outputs)."""

    def __init__(self, *, width: float, channels: int, num_outputs: int) -> None:
        super().__init__()
        inner = max(MIN_CHANNELS, int(FIRST_CHANNELS * width))
        layers = _layer(channels, inner, kernel_size=3, stride=2, padding=1)
        for outer_at_width_1, stride in PAIRS:
            outer = max(MIN_CHANNELS, int(outer_at_width_1 * width))
            layers += _layer(inner, inner, kernel_size=3, stride=stride, padding=1, groups=inner)
            layers += _layer(inner, outer, kernel_size=1)
            inner = outer
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inner, num_outputs)
        nn.init.normal_(self.classifier.weight, std=0.01)  # as torchvision's MobileNet-v2
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for images x."""
        return self.classifier(self.features(x).mean((2, 3)))


def _layer(in_channels: int, out_channels: int, **shape: int) -> list[nn.Module]:
    """A convolution, its normalisation and its activation."""
    convolution = new_convolution(in_channels, out_channels, bias=False, **shape)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True)]
