"""What PDP costs: the mask work of one training step, and whole training steps, against dense and a fixed mask.

    python scripts/benchmark_step.py --mask-work resnet18 --json figures.json
    python scripts/benchmark_step.py --step resnet18 --batch-size 128

Mask work is what a step adds for the weights alone: threshold, forward and backward of the mask. The variants run in
one process, one after the other in every round, and medians over rounds are printed: the machine's mood hits all alike.
`pdp_over_static` is PDP over a fixed mask multiplied in autograd; `sorting` is PDP with `torch.sort` for its thresholds
and plain autograd for its mask, as a first implementation would have it.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pruneexp.cli import compose
from pruneexp.config import build
from pruneexp.datasets.base import DataInfo
from pruneexp.masks import count_to_prune
from pruneexp.methods.base import Method, Setting, prunable
from pruneexp.schedules import Timeline
from pruneexp.tasks.build import task_for

SPARSITY = 0.9
LEARNING_RATE = 0.01


def seconds(variants: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, float]:
    """The median time of each variant, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for measured in range(-2, rounds):  # two rounds of warm-up
        for name, variant in variants.items():
            synchronise(device)
            start = time.perf_counter()
            variant()
            synchronise(device)
            if measured >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def network(name: str, image_size: int, device: torch.device) -> tuple[nn.Module, DataInfo]:
    """A model with random weights: BERT by the shape of its config, images by their size."""
    if name == "bert-base":
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig()).to(device), DataInfo("text", 2, ("accuracy",))
    info = DataInfo("image", 1000 if image_size > 64 else 10, ("accuracy",), channels=3, image_size=image_size)
    return build(compose([f"model={name}"])["model"], "model").network(info, pretrained=False).to(device), info


def pdp_on(model: nn.Module, info: DataInfo, overrides: list[str]) -> Method:
    """PDP set up on a model, at its final sparsity from the first step."""
    config = compose(["method=pdp", f"sparsity={SPARSITY}", "schedule=constant", *overrides])
    method = build(config["method"], "method")
    task = task_for(info, label_smoothing=0.0)
    method.setup(model, Setting(task=task, batches=[], timeline=Timeline(1000, 1_000_000), seed=0))
    return method


def mask_work(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the mask work of one step, by variant, and ratios."""
    device = torch.device(arguments.device)
    model, info = network(name, arguments.image_size, device)
    weights = {key: weight for key, weight in prunable(model, ["embeddings", "head"]).items()}
    plain = {key: weight.detach().clone().requires_grad_() for key, weight in weights.items()}
    gradients = {key: torch.randn_like(weight) for key, weight in plain.items()}
    fixed = {key: (weight.detach().abs() > weight.detach().abs().median()).float() for key, weight in plain.items()}
    method = pdp_on(model, info, arguments.overrides)
    step = iter(range(1, 10**9))

    def move(tensors: dict[str, Tensor]) -> None:
        """A small step, so that thresholds move as in training; not part of what is compared, the same for all."""
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.add_(gradients[key], alpha=1e-6)
                tensor.grad = None

    def static() -> None:
        for key, weight in plain.items():
            (weight * fixed[key]).backward(gradients[key])
        move(plain)

    def sorting() -> None:
        for key, weight in plain.items():
            magnitude = weight.detach().abs().flatten().sort().values
            count = count_to_prune(SPARSITY, magnitude.numel())
            t = 0.5 * (magnitude[count - 1] + magnitude[count])
            mask = ((weight.square() - t.square()) / (0.02 * t.square())).sigmoid()
            (weight * mask).backward(gradients[key])
        move(plain)

    def pdp() -> None:
        method.before_step(next(step))
        for key, soft_mask in method.soft_masks.items():
            soft_mask(method.weights[key]).backward(gradients[key])
        move(method.weights)

    def nothing() -> None:
        move(plain)

    variants = {"nothing": nothing, "static": static, "pdp": pdp}
    if not arguments.no_sorting:
        variants["sorting"] = sorting
    figures = seconds(variants, arguments.rounds, device)
    base = figures.pop("nothing")
    figures = {key: value - base for key, value in figures.items()}
    return {
        **{f"{key}_ms": 1000 * value for key, value in figures.items()},
        **{f"{key}_over_static": value / figures["static"] for key, value in figures.items() if key != "static"},
        "weights": sum(weight.numel() for weight in plain.values()),
    }


def whole_step(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of a training step, dense and with PDP, and peak memory on a GPU."""
    device = torch.device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    variants, peaks = {}, {}
    for variant in ("dense", "pdp"):
        model, info = network(name, arguments.image_size, device)
        method = pdp_on(model, info, arguments.overrides) if variant == "pdp" else Method()
        if arguments.compile:
            model.compile()
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        if info.kind == "text":
            shape = (arguments.batch_size, arguments.tokens)
            inputs = {"input_ids": torch.randint(1000, 20000, shape, generator=generator).to(device)}
        else:
            shape = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
            inputs = torch.randn(shape, generator=generator).to(device)
            if arguments.channels_last:
                model.to(memory_format=torch.channels_last)
                inputs = inputs.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(info.num_outputs, (arguments.batch_size,), generator=generator).to(device)
        batch = {"inputs": inputs, "labels": labels}
        variants[variant] = step_of(model, method, optimizer=optimizer, batch=batch, bf16=arguments.bf16, info=info)
        if device.type == "cuda":
            variants[variant]()
            torch.cuda.reset_peak_memory_stats()
            variants[variant]()
            peaks[f"{variant}_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    figures = seconds(variants, arguments.rounds, device)
    return {
        **{f"{key}_step_ms": 1000 * value for key, value in figures.items()},
        "pdp_over_dense": figures["pdp"] / figures["dense"],
        **peaks,
    }


def step_of(
    model: nn.Module, method: Method, *, optimizer: torch.optim.Optimizer, batch: dict, bf16: bool, info: DataInfo
) -> Callable[[], None]:
    """A function that makes one training step, as the trainer makes it."""
    task = task_for(info, label_smoothing=0.0)
    numbers = iter(range(1, 10**9))
    kind = batch["labels"].device.type

    def step() -> None:
        method.before_step(next(numbers))
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
            loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask-work", metavar="MODEL", help="resnet18, bert-base, or any model config for images")
    parser.add_argument("--step", metavar="MODEL", help="the same")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128, help="length of texts")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-sorting", action="store_true", help="leave the sort-based variant out")
    parser.add_argument("overrides", nargs="*", help="of the method's config, such as method.tau=0.1")
    arguments = parser.parse_args()
    if not (arguments.mask_work or arguments.step):
        parser.error("give --mask-work MODEL or --step MODEL")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    figures: dict[str, float | str] = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if arguments.mask_work:
        figures |= mask_work(arguments.mask_work, arguments)
    if arguments.step:
        figures |= whole_step(arguments.step, arguments)
    for key, value in figures.items():
        print(f"{key:<22} {value:.4g}" if isinstance(value, float) else f"{key:<22} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
