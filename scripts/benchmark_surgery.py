"""What surgery gives: equality, parameters, MACs and time of networks that lost 30, 50 and 70 % of their channels.

    OMP_NUM_THREADS=1 python scripts/benchmark_surgery.py
    OMP_NUM_THREADS=1 python scripts/benchmark_surgery.py --networks resnet18 bert_l6_h384 --runs 20 --json figures.json
    OMP_NUM_THREADS=2 python scripts/benchmark_surgery.py --networks resnet50 --image-size 224 --rates 0.3 0.5
    OMP_NUM_THREADS=1 python scripts/benchmark_surgery.py --networks bert_l6_h384 --hidden --rates 0.25 0.5 0.75

The networks have random weights and random norm statistics: equality, size and time do not depend on training. In every
layer that share of channels dies at random, those that are coupled together, with filter rows, biases, gammas and betas
at zero; in BERT, of the heads and feed-forward units of every layer, or with --hidden of the hidden dimensions. `error`
is max |shrunk - masked| / max |masked| in float64. Times are medians over calls of the dense network and the three
shrunk ones in turn, in float32, with half the interquartile range behind the sign. A dense network takes as long as the
masked one: zeros are multiplied all the same.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.masks import count_to_prune
from pruneexp.measure.flops import macs
from pruneexp.measure.latency import eager, latencies, repeated
from pruneexp.models.cifar_resnet import ResNet, ZeroPadShortcut
from pruneexp.models.hidden_stream import hidden_stream
from pruneexp.models.mobilenet_v1 import MobileNet
from pruneexp.surgery.coupled import coupling
from pruneexp.surgery.encoders import attentions, feed_forwards, number_of_heads
from pruneexp.surgery.shrink import shrink_and_report

RATES = (0.3, 0.5, 0.7)
CLASSES = 1000
TOKENS = 64
SINGLE = 6  # times as many calls at batch 1, which are short
HEADER = ("network, input", "zero", "error", "parameters", "MACs", "ms, batch 1")


def torchvision_network(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None)

    return build


def timm_network(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name)

    return build


def bert(layers: int, width: int) -> Callable[[], nn.Module]:
    """BERT with 12 heads and feed-forward layers four times as wide, as BERT-base and MiniLM have them."""

    def build() -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
        return BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=12, num_labels=2))

    return build


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: ResNet(blocks=3, channels=3, num_outputs=10), 32),
    "resnet56": (lambda: ResNet(blocks=9, channels=3, num_outputs=10), 32),
    **{
        name: (torchvision_network(name), 64)
        for name in (
            *("resnet18", "resnet34", "resnet50", "vgg16", "vgg16_bn", "densenet121"),
            *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"),
        )
    },
    "mobilenet_v1": (lambda: MobileNet(width=1.0, channels=3, num_outputs=CLASSES), 64),
    "timm:resnet26d": (timm_network("resnet26d"), 64),
    "timm:efficientnet_b0": (timm_network("efficientnet_b0"), 64),
    "bert_l6_h384": (bert(6, 384), TOKENS),  # MiniLM-L6-H384 (Wang et al. 2020, arXiv:2002.10957)
    "bert_l12_h768": (bert(12, 768), TOKENS),  # BERT-base (Devlin et al. 2019, arXiv:1810.04805)
}
"""Name -> how to build it, and pixels a side or tokens."""


def example_of(size: int, name: str) -> Any:
    if name.startswith("bert"):
        ids = torch.randint(1000, 2000, (2, size))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return torch.randn(2, 3, size, size)


def randomise_(network: nn.Module) -> None:
    """Norms that matter: gammas, betas and statistics away from one and zero."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                *((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)),
                *((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 1.5)),
            ):
                nn.init.uniform_(tensor, low, high)


def some(units: int, rate: float) -> Tensor:
    return torch.randperm(units)[: count_to_prune(rate, units)]


@torch.no_grad()
def kill_channels_(network: nn.Module, example: Tensor, rate: float) -> None:
    """Zeroes this share of the channels of every layer, coupled ones together, but not the outputs."""
    twin = copy.deepcopy(network).double().eval()
    with torch.enable_grad():
        coupled = coupling(twin, example.double())
    alive = torch.ones(coupled.sets, dtype=torch.bool)
    decided = torch.zeros(coupled.sets, dtype=torch.bool)
    decided[list(coupled.blocked)] = True
    outputs = [(layer, numbers) for (layer, role), numbers in coupled.sides.items() if role == "out"]
    for layer, numbers in outputs:
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            free = numbers[~decided[numbers]]
            alive[free[some(len(free), rate)]] = False
            decided[free] = True
    names = {module: name for name, module in twin.named_modules()}
    for layer, numbers in outputs:
        if not isinstance(layer, ZeroPadShortcut):
            for parameter in network.get_submodule(names[layer]).parameters(recurse=False):
                parameter[~alive[numbers]] = 0


@torch.no_grad()
def kill_heads_and_units_(network: nn.Module, rate: float) -> None:
    for _, found in attentions(network):
        heads = some(number_of_heads(found.attention), rate)
        rows = heads[:, None] * found.attention.attention_head_size + torch.arange(found.attention.attention_head_size)
        for layer in (getattr(found.attention, name) for name in found.names):
            layer.weight[rows.flatten()] = 0
            layer.bias[rows.flatten()] = 0
        found.projection.weight[:, rows.flatten()] = 0
    for _, found in feed_forwards(network):
        first, second = getattr(*found.first), getattr(*found.second)
        units = some(first.out_features, rate)
        first.weight[units] = 0
        first.bias[units] = 0
        second.weight[:, units] = 0


@torch.no_grad()
def kill_hidden_(network: nn.Module, rate: float) -> None:
    stream = hidden_stream(network)
    dimensions = some(stream.width, rate)
    for name in (*stream.embeddings, *stream.writers, *stream.norms):
        for parameter in network.get_submodule(name).parameters():
            (parameter.T if name in stream.embeddings else parameter)[dimensions] = 0


def kill_(network: nn.Module, name: str, example: Any, rate: float, *, hidden: bool) -> None:
    """Zeroes this share of what the network `name` can lose."""
    if not name.startswith("bert"):
        kill_channels_(network, example, rate)
    elif hidden:
        kill_hidden_(network, rate)
    else:
        kill_heads_and_units_(network, rate)


def figures(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for the dense network and one for each rate."""
    build, size = NETWORKS[name]
    size, runs = options.image_size or size, options.runs
    torch.manual_seed(0)
    network, example = build().eval(), example_of(size, name)
    randomise_(network)
    rows, variants = [row(name, size, 0.0, network, example)], {"0.0": eager(network)}
    for rate in options.rates:
        masked = copy.deepcopy(network)
        kill_(masked, name, example, rate, hidden=options.hidden)
        shrunk = shrink_and_report(masked, {}, example, multiple_of=options.multiple_of)
        rows.append({**row(name, size, rate, shrunk.network, example), "error": shrunk.error})
        variants[str(rate)] = eager(shrunk.network)
    for time in [
        *latencies(variants, example, batch_sizes=[1], runs=SINGLE * runs, warm_up=3),
        *latencies(variants, example, batch_sizes=[options.batch], runs=runs, warm_up=1),
    ]:
        target = next(row for row in rows if str(row["rate"]) == time.variant)
        target[f"ms_{time.batch_size}"] = (
            1e3 * time.median,
            500 * (time.third_quartile - time.first_quartile),
        )
        target |= {"threads": time.threads, "device": time.device, "runs": time.runs}
    return rows


def row(name: str, size: int, rate: float, network: nn.Module, example: Any) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    counted = macs(network, repeated(example, 1)).total
    return {"network": name, "size": size, "rate": rate, "error": None, "parameters": parameters, "macs": counted}


def markdown(rows: list[dict[str, Any]], batch: int) -> list[str]:
    lines = []
    dense = rows[0]
    for current in rows:
        unit = f"{current['size']} tokens" if current["network"].startswith("bert") else f"{current['size']} px"
        times = []
        for key in ("ms_1", f"ms_{batch}"):
            median, spread = current[key]
            ratio = "" if current is dense else f" ({dense[key][0] / median:.1f}x)"
            times.append(f"{median:.2f} ± {spread:.2f}{ratio}")
        cells = (
            f"{current['network']}, {unit}",
            f"{100 * current['rate']:.0f} %",
            "" if current["error"] is None else f"{current['error']:.0e}",
            f"{current['parameters'] / 1e6:.3f} M",
            f"{current['macs'] / 1e6:.1f} M",
            *times,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--runs", type=int, default=15, help="timed calls of a batch; six times as many of one example")
    parser.add_argument("--batch", type=int, default=32, help="examples in a batch, more than one")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="of the channels, heads and units")
    parser.add_argument("--hidden", action="store_true", help="in BERT, of the hidden dimensions instead")
    parser.add_argument("--image-size", type=int, help="pixels a side, or tokens; each network's own by default")
    parser.add_argument("--multiple-of", type=int, default=1, help="keep a multiple of so many channels")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    everything = []
    header = (*HEADER, f"ms, batch {options.batch}")
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|", flush=True)
    for name in options.networks:
        rows = figures(name, options)
        everything += rows
        print("\n".join(markdown(rows, options.batch)), flush=True)
        if options.json:
            options.json.write_text(json.dumps(everything, indent=1) + "\n")
    calls = f"{SINGLE * options.runs} and {options.runs} calls, {everything[0]['threads']} threads"
    print(f"\n{calls}, {everything[0]['device']}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
