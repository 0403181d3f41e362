"""What unconstrained channel pruning saves after export, in the three forms of `pruneexp.surgery.upscale`.

    python scripts/benchmark_upscale.py resnet50 --ratio 0.3 0.5 0.7 --json figures.json
    python scripts/benchmark_upscale.py densenet121 timm/mobilenetv1_100 --ratio 0.5 --batch-size 1 --rounds 5
    python scripts/benchmark_upscale.py resnet20 --image-size 32 --batch-size  # no latency

MODEL is a model config of this project, any network of torchvision, or timm/<name>. Every layer ignores the given ratio
of its input channels, those with the smallest weights. The exports are compared with the masked network in float64. The
dense network and all exports run in one process, one after the other in every round, and medians over rounds are
printed: the machine's mood hits all alike. `cpu ms` is the processor time of the same runs, which a busy machine
disturbs less than the time on the clock.
"""

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from pruneexp.building import build
from pruneexp.cli import compose
from pruneexp.datasets.base import DataInfo
from pruneexp.surgery.keep import keep_by_magnitude
from pruneexp.surgery.upscale import MODES, Report, export

CONFIGS = Path(__file__).parents[1] / "configs" / "model"
WARM_UP = 2


def network(name: str, image_size: int, checkpoint: str | None) -> nn.Module:
    """A network with the weights of a file, or with random weights and statistics of its batch normalisation."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        overrides = ["model=timm", f"model.name={name.removeprefix('timm/')}"]
    elif (CONFIGS / f"{name}.yaml").is_file():
        overrides = [f"model={name}"]
    else:
        overrides = ["model=resnet18", f"model.name={name}"]  # the config of torchvision's networks, with another name
    outputs = 1000 if image_size > 64 else 10
    info = DataInfo("image", outputs, ("accuracy",), channels=3, image_size=image_size)
    if checkpoint:
        return build(compose([*overrides, f"model.checkpoint={checkpoint}"])["model"], "model").build(info).eval()
    model = build(compose(overrides)["model"], "model").network(info, pretrained=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def latencies(variants: dict[str, nn.Module], example: torch.Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of the time on the clock and of the processor time in milliseconds, measured in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for measured in range(-WARM_UP, rounds):
        for name, variant in variants.items():
            synchronise(example)
            start, processor = time.perf_counter(), time.process_time()
            variant(example)
            synchronise(example)
            if measured >= 0:
                times[name].append((time.perf_counter() - start, time.process_time() - processor))
    return {
        name: {
            "ms": 1000 * statistics.median(clock for clock, _ in values),
            "cpu_ms": 1000 * statistics.median(processor for _, processor in values),
        }
        for name, values in times.items()
    }


def synchronise(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def figures(name: str, ratio: float, arguments: argparse.Namespace) -> list[dict]:
    """One row per mode, the dense network first."""
    size = arguments.image_size
    model = network(name, size, arguments.checkpoint).to(arguments.device)
    example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(arguments.device)
    keep = keep_by_magnitude(model, example, ratio, norm=arguments.norm)
    modules: dict[str, nn.Module] = {"dense": model}
    reports: dict[str, Report] = {}
    for mode in arguments.mode:
        modules[mode], reports[mode] = export(model, example, keep, mode=mode)
    some = next(iter(reports.values()))
    rows = {"dense": {"parameters": some.parameters_dense, "macs": some.macs_dense}}
    rows |= {mode: asdict(report) | {"reordered": len(report.reordered)} for mode, report in reports.items()}
    for batch_size in arguments.batch_size:
        batch = torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(1)).to(arguments.device)
        timed = {mode: torch.jit.trace(module, batch) for mode, module in modules.items()} if arguments.jit else modules
        for mode, numbers in latencies(timed, batch, arguments.rounds).items():
            rows[mode][f"batch_{batch_size}"] = numbers
    head = {"model": name, "ratio": ratio, "image_size": size}
    return [{**head, **row, "mode": mode} for mode, row in rows.items()]


def line(row: dict) -> str:
    """A row as text."""
    reads = row.get("layers", {})
    cells = [f"{row['model']:<22} {row['ratio']:<4} {row['mode']:<14} {row['parameters'] / 1e6:7.2f} M"]
    cells.append(f"{row['macs'] / 1e6:8.1f} M   {'/'.join(str(n) for n in reads.values()):<12}")
    cells.append(f"{row['difference']:8.1e}" if "difference" in row else " " * 8)
    cells += [f"{row[key]['ms']:8.1f} {row[key]['cpu_ms']:8.1f}" for key in row if key.startswith("batch_")]
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", metavar="MODEL")
    parser.add_argument("--checkpoint", help="a file with weights, of one MODEL; random weights without one")
    parser.add_argument("--ratio", type=float, nargs="+", default=[0.5], help="of the input channels that are ignored")
    parser.add_argument("--mode", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--norm", type=int, default=2, choices=(1, 2), help="of the weights of an input channel")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[1, 32], help="to time; none for no timing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jit", action="store_true", help="time traced modules, as the paper does")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU")
    arguments = parser.parse_args()
    if arguments.checkpoint and len(arguments.model) > 1:
        parser.error(f"--checkpoint {arguments.checkpoint}: give one MODEL with it")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    heads = " ".join(f"{f'ms b{size}':>8} {'cpu ms':>8}" for size in arguments.batch_size)
    print(f"{'model':<22} {'':<4} {'':<14} {'parameters':>9} {'MACs':>9}   {'whole/slice/copy':<12} differ {heads}")
    rows: list[dict] = []
    for name in arguments.model:
        for ratio in arguments.ratio:
            new = figures(name, ratio, arguments)
            rows += new
            print("\n".join(line(row) for row in new), flush=True)
            if arguments.json:  # after every network, so that nothing is lost
                arguments.json.write_text(json.dumps({**machine(arguments), "rows": rows}, indent=1) + "\n")


def machine(arguments: argparse.Namespace) -> dict[str, str | int | float | bool]:
    """What the figures were measured on."""
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "jit": arguments.jit,
    }


if __name__ == "__main__":
    main()
