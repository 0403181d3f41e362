"""Small networks, one trap each: what looks dead and is not, and what looks alive and is not needed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pruneexp.surgery.shrink import shrink, shrink_and_report
from pruneexp.surgery.verify import SurgeryError

IMAGE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Layers by name and a forward pass over them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def kill(*layers, channels):
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data[channels] = 0


def conv_norm_conv(padding, kernel_size=3):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, kernel_size, padding=padding, bias=False),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def prepared(network, randomised):
    network(IMAGE)
    return randomised(network)


def test_a_positive_constant_before_zero_padding_is_kept_and_reported(randomised, difference):
    network = prepared(conv_norm_conv(padding=1), randomised)
    kill(network[0], channels=[2, 5])
    with torch.no_grad():  # what the norm makes of zero: beta - gamma mean / std
        network[1].bias[2] = 1.0 + network[1].weight[2] * network[1].running_mean[2] / network[1].running_var[2].sqrt()
        network[1].bias[5] = -1.0 + network[1].weight[5] * network[1].running_mean[5] / network[1].running_var[5].sqrt()
    shrunk = shrink_and_report(
        network, {"0.weight": torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()[:, None, None, None]}, IMAGE
    )
    assert shrunk.network[0].out_channels == 7  # channel 5 is negative before the ReLU, so zero after it
    assert [(kept.layer, kept.units) for kept in shrunk.kept] == [("0", 1)]
    assert shrunk.kept[0].why == "carries a constant that 3 reads, which pads with zeros"
    assert difference(network, shrunk.network, IMAGE) < 1e-6


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_constant_goes_into_the_next_bias_where_no_zeros_are_padded(kernel_size, randomised, difference):
    network = prepared(conv_norm_conv(0, kernel_size), randomised)
    kill(network[0], channels=[2, 5])
    network[1].bias.data[[2, 5]] = 3.0
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert (shrunk.network[0].out_channels, shrunk.network[1].num_features, shrunk.kept) == (6, 6, [])
    assert network[3].bias is None
    assert shrunk.network[3].bias is not None
    assert difference(network, shrunk.network, IMAGE) < 1e-6


def test_a_padded_1x1_convolution_is_no_place_for_a_constant(randomised, difference):
    network = prepared(conv_norm_conv(padding=1, kernel_size=1), randomised)
    kill(network[0], channels=[2])
    network[1].bias.data[2] = 3.0
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert difference(network, shrunk.network, IMAGE) < 1e-6
    assert shrunk.network[0].out_channels == 8


def test_a_norm_whose_gamma_is_zero_makes_a_live_filter_useless(randomised, difference):
    network = prepared(conv_norm_conv(padding=1), randomised)
    kill(network[1], channels=[0, 3])
    small = shrink(network, {}, IMAGE)
    assert small[0].out_channels == 6
    assert difference(network, small, IMAGE) < 1e-6


def test_with_one_of_two_producers_alive_the_channel_stays(randomised, difference):
    network = randomised(
        Net(
            lambda m, x: m.last((m.norm1(m.conv1(x)) + m.norm2(m.conv2(x))).relu()),
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            norm1=nn.BatchNorm2d(8),
            conv2=nn.Conv2d(3, 8, 1),
            norm2=nn.BatchNorm2d(8),
            last=nn.Conv2d(8, 2, 1),
        )
    )
    kill(network.conv1, network.norm1, channels=[0, 1, 2])
    kill(network.conv2, network.norm2, channels=[2, 3])
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert shrunk.network.conv1.out_channels == shrunk.network.conv2.out_channels == 7
    assert {(kept.layer, kept.units, kept.why) for kept in shrunk.kept} == {
        ("conv1", 2, "is coupled with a channel of conv2, which is alive"),
        ("conv2", 1, "is coupled with a channel of conv1, which is alive"),
    }
    assert difference(network, shrunk.network, IMAGE) < 1e-6


def test_what_nobody_reads_goes_and_so_does_what_only_it_reads(randomised, difference):
    network = randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Conv2d(8, 2, 3, padding=1),
        )
    )
    network[6].weight.data[:, [1, 4, 6]] = 0  # nobody reads channels 1, 4, 6 of the second convolution
    network[3].weight.data[[0, 2, 3, 5, 7], 7] = 0  # and only those read channel 7 of the first
    small = shrink(network, {}, IMAGE)
    assert (small[0].out_channels, small[3].out_channels) == (7, 5)
    assert difference(network, small, IMAGE) < 1e-6


def test_a_layer_that_is_dead_altogether_keeps_one_channel(randomised, difference):
    network = randomised(
        Net(
            lambda m, x: m.last((m.stem(x) + m.norm(m.conv2(m.conv1(m.stem(x)).relu()))).relu()),
            stem=nn.Conv2d(3, 8, 3, padding=1),
            conv1=nn.Conv2d(8, 8, 3, padding=1),
            conv2=nn.Conv2d(8, 8, 3, padding=1),
            norm=nn.BatchNorm2d(8),
            last=nn.Conv2d(8, 2, 1),
        )
    )
    kill(network.conv2, network.norm, channels=slice(None))
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert shrunk.network.conv1.out_channels == 1
    assert shrunk.network.conv2.out_channels == 8  # the stem's channels
    assert difference(network, shrunk.network, IMAGE) < 1e-6


def test_depthwise_convolutions_pass_zeros_on_and_make_constants_of_biases(randomised, difference):
    network = randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Hardswish()),
            *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish()),
            nn.Conv2d(8, 4, 1),
        )
    )
    kill(network[0], network[1], channels=[0, 1, 2])  # the depthwise filters and their norm stay alive
    kill(network[3], channels=[5])
    small = shrink(network, {}, IMAGE)
    assert (small[0].out_channels, small[3].groups, small[3].in_channels, small[6].in_channels) == (4, 4, 4, 4)
    assert difference(network, small, IMAGE) < 1e-6


def test_transposed_convolutions(randomised, difference):
    network = randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.ConvTranspose2d(8, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        )
    )
    kill(network[0], network[1], channels=[0, 3])
    network[3].weight.data[:, 5] = 0
    kill(network[4], channels=[5])
    small = shrink(network, {}, IMAGE)
    assert (small[3].in_channels, small[3].out_channels, small[6].in_channels) == (6, 5, 5)
    assert difference(network, small, IMAGE) < 1e-6


def test_a_multilayer_perceptron_folds_what_its_activation_makes_of_biases(difference):
    network = nn.Sequential(nn.Linear(6, 10), nn.Sigmoid(), nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 3))
    network[0].weight.data[[1, 2]] = 0  # sigmoid(bias) is no zero
    kill(network[2], channels=[0, 9])
    x = torch.randn(4, 6)
    small = shrink(network, {}, x)
    assert [layer.out_features for layer in small if isinstance(layer, nn.Linear)] == [8, 8, 3]
    assert difference(network, small, x) < 1e-6


def test_an_output_that_is_read_on_the_way_keeps_its_channels(randomised):
    def forward(m, x):
        features = m.conv1(x).relu()
        return {"features": features, "maps": m.conv2(features)}

    network = Net(forward, conv1=nn.Conv2d(3, 8, 3, padding=1), conv2=nn.Conv2d(8, 4, 1))
    kill(network.conv1, channels=[0, 1])
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert shrunk.network(IMAGE)["features"].shape[1] == 8
    assert shrunk.kept[0].why == "is part of the network's output"


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (lambda x: x.softmax(1), "SoftmaxBackward"),
        (lambda x: x.permute(0, 2, 3, 1).flip(-1).permute(0, 3, 1, 2), "PermuteBackward"),
        (
            lambda x: x.reshape(2, 2, 4, 12, 12).transpose(1, 2).reshape(2, 8, 12, 12),
            "a change of shape that mixes channels",
        ),
        (lambda x: torch.mul(*x.chunk(2, 1)), "_SplitOp"),
        (lambda x: F.group_norm(x, 2), "NativeGroupNormBackward"),
        (lambda x: x - x.mean(1, keepdim=True), "MeanBackward"),
        (lambda x: x[:, :8:1] * x[:, 0:1], "slice of channels"),
        (lambda x: x.cumsum(1), "CumsumBackward"),
    ],
)
def test_what_mixes_channels_keeps_them(middle, why, difference):
    network = Net(lambda m, x: m.last(middle(m.conv(x))), conv=nn.Conv2d(3, 8, 3, padding=1), last=nn.LazyConv2d(4, 1))
    network(IMAGE)
    kill(network.conv, channels=[0, 5])
    shrunk = shrink_and_report(network, {}, IMAGE)
    assert shrunk.network.conv.out_channels == 8
    assert sum(kept.units for kept in shrunk.kept) == 2
    assert difference(network, shrunk.network, IMAGE) < 1e-6
    assert why in shrunk.kept[0].why


def test_group_norm_as_a_layer_keeps_its_channels(difference):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    kill(network[0], network[1], channels=[0, 1, 4])
    small = shrink(network, {}, IMAGE)
    assert small[0].out_channels == 8
    assert difference(network, small, IMAGE) < 1e-6


def test_layers_that_share_a_weight_stay_whole(difference):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    network[4].weight = network[2].weight
    kill(network[0], channels=[1])
    kill(network[2], channels=[3])
    small = shrink(network, {}, IMAGE)
    assert [small[i].out_channels for i in (0, 2, 4)] == [4, 4, 4]
    assert difference(network, small, IMAGE) < 1e-6


def test_a_layer_used_twice_loses_what_is_dead_in_both_uses(difference):
    network = Net(
        lambda m, x: m.last(m.twice(m.twice(m.first(x)).relu()).relu()),
        first=nn.Conv2d(3, 6, 1),
        twice=nn.Conv2d(6, 6, 3, padding=1),
        last=nn.Conv2d(6, 2, 1),
    )
    kill(network.first, channels=[0, 1])
    kill(network.twice, channels=[1, 2])
    small = shrink(network, {}, IMAGE)
    assert (small.first.out_channels, small.twice.in_channels, small.twice.out_channels) == (5, 5, 5)
    assert difference(network, small, IMAGE) < 1e-6


def test_a_mask_whose_weights_are_not_zero_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    mask = {"0.weight": torch.tensor([True, False, True, True]).reshape(4, 1, 1, 1)}
    with pytest.raises(SurgeryError, match=r"0\.weight is not zero at 3 weights that its mask prunes; apply the masks"):
        shrink(network, mask, IMAGE)
    with pytest.raises(SurgeryError, match=r"the network has no parameter 7\.weight"):
        shrink(network, {"7.weight": mask["0.weight"]}, IMAGE)
    with pytest.raises(SurgeryError, match=r"0\.weight has shape \(5,\), the parameter \(4, 3, 1, 1\)"):
        shrink(network, {"0.weight": torch.ones(5, dtype=torch.bool)}, IMAGE)


def test_a_parametrized_network_is_refused():
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)))
    with pytest.raises(SurgeryError, match=r"^0 is parametrized: finalise"):
        shrink(network, {}, IMAGE)


class Mixed(nn.Module):
    """A residual addition, a concatenation, a depthwise convolution, pooling and a classifier behind a flatten."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
        self.depthwise, self.norm3 = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 25, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        y = x + F.hardswish(self.norm1(self.conv1(x)))
        z = F.relu6(self.norm2(self.conv2(torch.cat([x, y], 1))))
        z = F.silu(self.norm3(self.depthwise(z)))
        return self.linear(F.max_pool2d(z, 2).flatten(1))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from([0.2, 0.5, 0.8]))
def test_whatever_is_zero_the_function_stays(seed, rate):
    """Rows, columns and norm parameters die at random, not together."""
    torch.manual_seed(seed)
    network = Mixed().eval()
    for module in network.modules():
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if key == "running_var":
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif tensor.is_floating_point():
                nn.init.normal_(tensor)
                for dim in range(min(tensor.dim(), 2)):
                    tensor.data.transpose(0, dim)[torch.rand(tensor.shape[dim]) < rate] = 0
    small = shrink(network, {}, IMAGE)
    with torch.no_grad():
        expected, found = (copy.deepcopy(net).double()(IMAGE.double()) for net in (network, small))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_torchs_own_transformer_layer_loses_feed_forward_units(difference):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.Sequential(nn.Linear(5, 16), layer, nn.Linear(16, 3)).eval()
    kill(layer.linear1, channels=[0, 7, 8])
    x = torch.randn(2, 6, 5)
    small = shrink(network, {}, x)
    assert (small[1].linear1.out_features, small[1].linear2.in_features) == (29, 29)
    assert difference(network, small, x) < 1e-6


def test_widths_can_be_kept_at_a_multiple(randomised, difference):
    network = randomised(
        nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 16, 3), nn.Conv2d(16, 2, 1))
    )
    kill(network[0], network[1], channels=list(range(9)))
    kill(network[3], channels=list(range(9)))
    shrunk = shrink_and_report(network, {}, IMAGE, multiple_of=8)
    assert [shrunk.network[i].out_channels for i in (0, 3, 4)] == [16, 8, 2]
    assert {(kept.layer, kept.units, kept.why) for kept in shrunk.kept} == {
        ("0", 5, "0 keeps a multiple of 8"),
        ("3", 1, "3 keeps a multiple of 8"),
    }
    assert difference(network, shrunk.network, IMAGE) < 1e-6
    with pytest.raises(SurgeryError, match="multiple_of=0: must be at least 1"):
        shrink(network, {}, IMAGE, multiple_of=0)
