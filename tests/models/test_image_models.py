"""torchvision, timm and MobileNet-v1: sizes, stems, fitting of weights, messages."""

import logging
from dataclasses import replace

import pytest
import torch
import torchvision as tv
from safetensors.torch import save_file

from pruneexp.models import hub
from pruneexp.models.mobilenet_v1 import MobileNetV1
from pruneexp.models.pretrained import load_pretrained
from pruneexp.models.timm import Timm
from pruneexp.models.torchvision import Torchvision

COUNTS = {  # He et al. 2016 and torchvision's and timm's model cards, 1000 classes
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_of_the_imagenet_networks(name, arguments, imagenet):
    with torch.device("meta"):
        assert count(Torchvision(**arguments(name)).build(imagenet)) == COUNTS[name]


def test_imagenet_networks_are_torchvisions_own(arguments, imagenet):
    torch.manual_seed(0)
    ours = Torchvision(**arguments("resnet18")).build(imagenet)
    torch.manual_seed(0)
    theirs = tv.models.resnet18()
    assert str(ours) == str(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(("width", "parameters"), [(1.0, 4_231_976), (0.5, 1_331_592), (0.25, 470_072)])
def test_mobilenet_v1_parameter_counts(width, parameters, arguments, imagenet):
    with torch.device("meta"):
        assert count(MobileNetV1(**arguments("mobilenet_v1", width=width)).build(imagenet)) == parameters


def test_mobilenet_v1_is_timms(arguments, imagenet):
    import timm

    with torch.device("meta"):
        ours = MobileNetV1(**arguments("mobilenet_v1")).build(imagenet)
        theirs = timm.create_model("mobilenetv1_100")
    shapes = [[p.shape for p in network.parameters()] for network in (ours, theirs)]
    assert shapes[0] == shapes[1]
    strides = [[m.stride for m in n.modules() if isinstance(m, torch.nn.Conv2d)] for n in (ours, theirs)]
    assert strides[0] == strides[1]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
@pytest.mark.parametrize(
    ("stem", "side", "map_side"), [("auto", 64, 8), ("auto", 96, 3), ("small", 96, 12), ("imagenet", 32, 1)]
)
def test_stem_decides_the_side_of_the_last_map(name, stem, side, map_side, arguments, cifar, caplog):
    caplog.set_level(logging.INFO, logger="pruneexp")
    recipe = MobileNetV1 if name == "mobilenet_v1" else Torchvision
    with torch.device("meta"):
        network = recipe(**arguments(name, stem=stem)).build(replace(cifar, image_size=side))
        sides = []
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
        network(torch.empty(2, 3, side, side))
    chosen = "small" if stem == "small" or (stem == "auto" and side <= 64) else "imagenet"
    assert min(sides[:-1] if name == "mobilenet_v3_small" else sides) <= map_side  # its squeezes see one pixel
    assert [s for s in sides if s != 1 or map_side == 1][-1] == map_side
    assert f"the {chosen} stem for images of {side} pixels" in caplog.text


def test_small_resnet_stem_is_a_convolution_of_stride_1_without_pooling(arguments, cifar):
    network = Torchvision(**arguments("resnet18")).build(replace(cifar, channels=2))
    assert network.conv1.weight.shape == (64, 2, 3, 3)
    assert network.conv1.stride == (1, 1)
    assert isinstance(network.maxpool, torch.nn.Identity)
    assert network.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)  # Kaiming, fan-out


class FakeWeights:
    """Weights of torchvision that need no network."""

    def __init__(self, state):
        self.state = state

    def get_state_dict(self, **options):
        return self.state


@pytest.fixture
def imagenet_resnet18():
    torch.manual_seed(3)
    return {k: v.clone() for k, v in tv.models.resnet18().state_dict().items()}


def test_pretrained_weights_are_kept_where_they_fit(arguments, cifar, imagenet_resnet18, caplog):
    caplog.set_level(logging.INFO, logger="pruneexp")
    model = Torchvision(**arguments("resnet18", pretrained=True, stem="imagenet"))
    assert model.weights == tv.models.ResNet18_Weights.DEFAULT
    model.weights = FakeWeights(imagenet_resnet18)
    state = model.build(cifar).state_dict()
    differing = {
        key
        for key in state
        if not torch.equal(state[key], imagenet_resnet18[key].reshape(-1)[: state[key].numel()].view_as(state[key]))
    }
    assert differing == {"fc.weight", "fc.bias"}
    assert "fc.weight initialised anew" in caplog.text
    assert "conv1" not in caplog.text


def test_pretrained_first_convolution_for_grey_images_is_the_sum_over_colours(arguments, cifar, imagenet_resnet18):
    model = Torchvision(**arguments("resnet18", pretrained="IMAGENET1K_V1", stem="imagenet"))
    model.weights = FakeWeights(imagenet_resnet18)
    grey = model.build(replace(cifar, channels=1))
    colour = model.build(cifar)
    colour.fc.load_state_dict(grey.fc.state_dict())
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(grey.eval()(image), colour.eval()(image.expand(-1, 3, -1, -1)))


def test_pretrained_weights_with_the_small_stem_lose_only_the_first_convolution(
    arguments, cifar, imagenet_resnet18, caplog
):
    caplog.set_level(logging.INFO, logger="pruneexp")
    model = Torchvision(**arguments("resnet18", pretrained=True))
    model.weights = FakeWeights(imagenet_resnet18)
    state = model.build(cifar).state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], imagenet_resnet18["layer4.1.conv2.weight"])
    assert "conv1.weight initialised anew" in caplog.text


@pytest.mark.parametrize("recipe", [Torchvision, Timm])
def test_pretrained_weights_from_a_file(recipe, arguments, cifar, imagenet, tmp_path):
    name = "mobilenet_v3_small" if recipe is Torchvision else "timm"
    torch.manual_seed(1)
    dense = recipe(**arguments(name)).build(imagenet).state_dict()
    save_file(dense, tmp_path / "weights.safetensors")
    model = recipe(**arguments(name, pretrained=str(tmp_path / "weights.safetensors")))
    state = model.build(cifar).state_dict()
    kept = {key for key in state if torch.equal(state[key], dense[key])}
    assert {key.split(".")[0] for key in set(state) - kept} == {"classifier"}
    random = model.network(cifar, pretrained=False).state_dict()
    assert not torch.equal(random[next(iter(random))], dense[next(iter(dense))])


def test_pretrained_weights_of_another_network_are_refused(arguments, cifar, imagenet_resnet18, tmp_path):
    save_file(imagenet_resnet18, tmp_path / "resnet18.safetensors")
    model = Torchvision(**arguments("resnet34", pretrained=str(tmp_path / "resnet18.safetensors")))
    with pytest.raises(ValueError, match=r"model.pretrained=.*has no layer1.2.conv1.weight.*; choose"):
        model.build(cifar)


def test_pretrained_weights_of_another_width_are_refused(arguments, cifar, imagenet, tmp_path):
    half = MobileNetV1(**arguments("mobilenet_v1", width=0.5)).build(imagenet)
    full = MobileNetV1(**arguments("mobilenet_v1")).build(cifar)
    with pytest.raises(ValueError, match=r"^here: features.1.weight has shape \(32,\) in the model, \(16,\) there"):
        load_pretrained(full, half.state_dict(), "here")


def test_a_failed_download_names_the_remedy(arguments, cifar, monkeypatch):
    def fail(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    model = Torchvision(**arguments("resnet18", pretrained=True))
    with pytest.raises(
        ValueError, match=r"model.pretrained=True: .*pth cannot be downloaded \(no route\).*model.checkpoint=<file>"
    ) as e:
        model.build(cifar)
    assert "\n" not in str(e.value)
    model.network(cifar, pretrained=False)  # asks for nothing


def test_timm_without_a_network_names_the_remedy(arguments, cifar, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = Timm(**arguments("timm", pretrained=True))
    with pytest.raises(
        ValueError, match=r"model.name=mobilenetv1_100: cannot be downloaded .*model.checkpoint=<file>"
    ) as error:
        model.build(cifar)
    assert "\n" not in str(error.value)


def test_timm_vision_transformers_get_the_size_of_the_images(arguments, cifar, digits):
    model = Timm(**arguments("timm", name="vit_tiny_patch16_224"))
    with torch.device("meta"):
        assert model.build(cifar).pos_embed.shape[1] == 1 + (32 // 16) ** 2
    with pytest.raises(ValueError, match=r"model.name=vit_tiny_patch16_224: .*1x8x8"):
        model.build(digits)


@pytest.mark.parametrize(
    ("recipe", "config", "changes", "message"),
    [
        (Torchvision, "resnet18", {"name": "resnet19"}, r"model.name=resnet19: .*resnet18"),
        (Torchvision, "resnet18", {"pretrained": "IMAGENET1K_V3"}, r"model.pretrained=IMAGENET1K_V3: .*IMAGENET1K_V1"),
        (Torchvision, "resnet18", {"stem": "tiny"}, r"model.stem=tiny: .*auto, small, imagenet"),
        (Torchvision, "resnet18", {"name": "vgg11", "stem": "small"}, r"model.stem=small: .*vgg11"),
        (Torchvision, "resnet18", {"checkpoint": "/no/file.pt"}, r"model.checkpoint=/no/file.pt: no such file"),
        (Timm, "timm", {"name": "resnet_18"}, r"model.name=resnet_18: .*resnet18"),
        (Timm, "timm", {"name": "resnet18.a9_in1k"}, r"model.name=resnet18.a9_in1k: .*a1_in1k"),
        (Timm, "timm", {"pretrained": "/no/file.pt"}, r"model.pretrained=/no/file.pt: no such file"),
        (MobileNetV1, "mobilenet_v1", {"width": 0.0}, r"model.width=0.0: must be positive"),
        (MobileNetV1, "mobilenet_v1", {"stem": "big"}, r"model.stem=big"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_built(recipe, config, changes, message, arguments):
    with pytest.raises(ValueError, match=message) as error:
        recipe(**arguments(config, **changes))
    assert "\n" not in str(error.value)


def test_a_network_that_cannot_take_the_images_is_refused(arguments, cifar):
    with pytest.raises(ValueError, match=r"model.name=vit_b_16: takes no image of 3x32x32"), torch.device("meta"):
        Torchvision(**arguments("resnet18", name="vit_b_16")).build(cifar)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("recipe", "config", "changes", "file"),
    [
        (Torchvision, "mobilenet_v2", {}, "imagenet_mobilenet_v2"),
        (Torchvision, "resnet18", {"name": "squeezenet1_0"}, "imagenet_squeezenet1_0_deepcompressed"),
        (MobileNetV1, "mobilenet_v1", {"width": 0.5}, "imagenet_mobilenet_v1_x0_5"),
    ],
)
def test_public_checkpoints_load_completely(recipe, config, changes, file, arguments, imagenet, shared_data, caplog):
    path = shared_data / "checkpoints" / f"{file}.safetensors"
    caplog.set_level(logging.WARNING, logger="pruneexp")
    network = recipe(**arguments(config, checkpoint=str(path), **changes)).build(imagenet)
    assert not caplog.records
    assert {p.dtype for p in network.parameters()} == {torch.float32}
