"""What PDP costs: the mask work of one training step, whole training steps, and peak memory.

    python scripts/benchmark_step.py --mask-work resnet18 --json figures.json
    python scripts/benchmark_step.py --step resnet18 --batch-size 128

Mask work is what a step adds for the weights alone: thresholds, masks times weights, and their backward pass, layer by
layer as in training. `static` is a fixed mask multiplied in autograd, `pdp` what pruneexp does; `kthvalue`, `topk` and
`sorting` are PDP with plain autograd for the mask and that operation of torch for the threshold, as a first
implementation would have it. The time of `nothing` (a small step of the weights) is subtracted from all.

Variants run in one process, one after the other in every round, and medians over rounds are printed: the machine's
mood hits all alike. With --cpu-time they are of the process's CPU seconds instead of the clock's. Peak memory is taken
in processes of its own: what torch's allocator had given out at most, the same in every run; and on a CPU also how far
the resident set (VmHWM, Linux only) rose above that of the process with all imports done, the median of --peaks
processes: it has what the C library keeps of freed memory, and what is not torch's.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.profiler import ProfilerActivity, profile

from benchmarked_models import EXCLUDE, Step, network, pdp_on, seconds
from mask_work import PLAIN, mask_work
from pruneexp.datasets.base import Batch, DataInfo
from pruneexp.masks import owner
from pruneexp.methods.base import Method
from pruneexp.prunable import prunable
from pruneexp.tasks.build import task_for

LEARNING_RATE = 0.01
STEP_VARIANTS = ("dense", "static", "pdp")


class FixedMask(nn.Module):
    """The parametrization mask x w, with the larger half of the weights kept."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.mask = (weight.detach().abs() > weight.detach().abs().median()).to(weight)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def method_on(variant: str, model: nn.Module, info: DataInfo, overrides: list[str]) -> Method:
    """The method of a variant, attached to a model; a fixed mask needs no hooks."""
    if variant == "pdp":
        return pdp_on(model, info, overrides)
    if variant == "static":
        for key, weight in prunable(model, EXCLUDE).items():
            parametrize.register_parametrization(owner(model, key)[0], "weight", FixedMask(weight))
    return Method()


def batch_for(info: DataInfo, arguments: argparse.Namespace) -> Batch:
    """Random inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(info.num_outputs, (arguments.batch_size,), generator=generator).to(arguments.device)
    if info.kind == "text":
        shape = (arguments.batch_size, arguments.tokens)
        tokens = torch.randint(1000, 20000, shape, generator=generator).to(arguments.device)
        return {"inputs": {"input_ids": tokens}, "labels": labels}
    shape = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    inputs = torch.randn(shape, generator=generator).to(arguments.device).contiguous(memory_format=layout)
    return {"inputs": inputs, "labels": labels}


def step_of(variant: str, name: str, arguments: argparse.Namespace) -> Step:
    """A function that makes one training step of a variant, as the trainer makes it."""
    device = torch.device(arguments.device)
    model, info = network(name, arguments.image_size, device)
    if arguments.channels_last:
        model.to(memory_format=torch.channels_last)
    method = method_on(variant, model, info, arguments.overrides)
    if arguments.compile:
        model.compile()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    task = task_for(info, label_smoothing=0.0)
    batch = batch_for(info, arguments)
    numbers = iter(range(1, 10**9))

    def step() -> None:
        method.before_step(next(numbers))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=arguments.bf16):
            loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def whole_step(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of a training step by variant, peak memory, and both over dense."""
    peaks = median_peaks(arguments)
    variants = {variant: step_of(variant, name, arguments) for variant in STEP_VARIANTS}
    figures = seconds(variants, arguments)
    return {
        **{f"{key}_step_ms": 1000 * value for key, value in figures.items()},
        **{f"{key}_over_dense": figures[key] / figures["dense"] for key in ("static", "pdp")},
        **{f"{key}_{kind}_mib": peak[kind] for key, peak in peaks.items() for kind in peak},
        **{
            f"{key}_{kind}_over_dense": peaks[key][kind] / peaks["dense"][kind]
            for key in ("static", "pdp")
            for kind in peaks["dense"]
        },
    }


def peak_in_child(kind: str, variant: str) -> float:
    """The peak of one kind and variant in MiB, in a process of its own with the arguments of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", kind, variant]
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # the profiler has much to say
    if result.returncode:
        sys.exit(result.stderr)
    return float(result.stdout.splitlines()[-1])


def median_peaks(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The peaks of each variant by kind: the median over processes, variants in turn, since pages vary by 5 %."""
    processes = {"allocated": 1} if arguments.device == "cuda" else {"allocated": 1, "resident": arguments.peaks}
    found: dict[str, dict[str, float]] = {variant: {} for variant in STEP_VARIANTS}
    for kind, count in processes.items():
        rounds = [{variant: peak_in_child(kind, variant) for variant in STEP_VARIANTS} for _ in range(count)]
        for variant in STEP_VARIANTS:
            found[variant][kind] = statistics.median(peaks[variant] for peaks in rounds)
    return found


def peak_of(kind: str, variant: str, name: str, arguments: argparse.Namespace) -> float:
    """The same, measured here over two steps; the process must have done nothing else."""

    def work() -> None:
        step = step_of(variant, name, arguments)
        for _ in range(2):  # the optimizer's state is there from the second on
            step()

    if kind == "resident":
        before = resident("VmRSS")
        work()
        return resident("VmHWM") - before
    if arguments.device == "cuda":
        work()
        return torch.cuda.max_memory_allocated() / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    return allocated(profiler)


def allocated(profiler: profile) -> float:
    """The most that torch had allocated at one time on the CPU, in MiB."""
    events, most = list(profiler.profiler.kineto_results.experimental_event_tree()), 0
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.name == "[memory]":
            most = max(most, event.extra_fields.total_allocated)
    return most / 2**20


def resident(field: str) -> float:
    """A line of /proc/self/status in MiB. getrusage will not do: its peak is inherited from the parent process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def machine(arguments: argparse.Namespace) -> dict[str, float | str]:
    """What the figures depend on."""
    return {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask-work", metavar="MODEL", help="resnet18, bert-base, or any model config for images")
    parser.add_argument("--step", metavar="MODEL", help="the same")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peaks", type=int, default=3, help="processes of which peak memory is the median")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds: for one thread on a busy machine")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128, help="length of texts")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--variants", nargs="*", choices=sorted(PLAIN), default=list(PLAIN), help="besides static, pdp")
    parser.add_argument("--overrides", nargs="*", default=[], help="of the method's config, such as method.tau=0.1")
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)  # kind and variant: what child processes run
    arguments = parser.parse_args()
    if not (arguments.mask_work or arguments.step):
        parser.error("give --mask-work MODEL or --step MODEL")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(peak_of(*arguments.peak_of, arguments.step, arguments))
        return
    figures = machine(arguments)
    if arguments.mask_work:
        figures |= mask_work(arguments.mask_work, arguments)
    if arguments.step:
        figures |= whole_step(arguments.step, arguments)
    for key, value in figures.items():
        print(f"{key:<24} {value:.4g}" if isinstance(value, float) else f"{key:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
