"""How long a model takes: medians over many runs, with their spread, variants in turn within one process.

Variants are timed one after the other in every round, so that whatever else the machine does falls on all alike, and
each is run a few times before, since the first calls allocate memory, choose kernels and compile. Numbers of parameters
and MACs do not tell the time: small batches, odd widths and memory traffic decide too. Compare figures of one machine,
one batch size and one number of threads only; every figure carries them.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.tasks.base import predict

Variant = Callable[[Any], Any]  # inputs -> outputs


@dataclass(frozen=True)
class Latency:
    """Seconds of one call of a variant: median, first and third quartile over `runs` calls."""

    variant: str
    batch_size: int
    median: float
    first_quartile: float
    third_quartile: float
    runs: int
    threads: int
    device: str


def latencies(
    variants: Mapping[str, Variant],
    example: Any,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    runs: int = 50,
    warm_up: int = 5,
) -> list[Latency]:
    """The latency of every variant at every batch size, batch sizes in order and variants within them.

    example: a tensor, or a dict of tensors, whose first row is repeated to make a batch. It lies on the device that is
    timed; on a GPU each call waits for the device. runs: timed calls, at least 2. warm_up: calls before them.

    Raises:
        ValueError: fewer than 2 runs, or a batch size below 1.
    """
    check_timing(batch_sizes, runs)
    rows = []
    for size in batch_sizes:
        batch = repeated(example, size)
        times = _times(variants, batch, runs, warm_up)
        rows += [_row(name, size, seconds, batch) for name, seconds in times.items()]
    return rows


def check_timing(batch_sizes: Sequence[int], runs: int) -> None:
    """Raises ValueError for fewer than 2 runs or a batch size below 1."""
    if runs < 2:
        raise ValueError(f"runs={runs}: want at least 2, for a spread")
    if min(batch_sizes, default=0) < 1:
        raise ValueError(f"batch_sizes={list(batch_sizes)}: want numbers of at least 1")


def _times(variants: Mapping[str, Variant], batch: Any, runs: int, warm_up: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    device = _device(batch)
    with torch.inference_mode():
        for position in range(-warm_up, runs):
            for name, variant in variants.items():
                _wait(device)
                start = time.perf_counter()
                variant(batch)
                _wait(device)
                if position >= 0:
                    times[name].append(time.perf_counter() - start)
    return times


def _row(name: str, size: int, seconds: list[float], batch: Any) -> Latency:
    first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
    device = _device(batch)
    return Latency(name, size, median, first, third, len(seconds), torch.get_num_threads(), device_name(device))


def eager(network: nn.Module) -> Variant:
    """The network as it is, in eval mode."""
    network.eval()
    return lambda inputs: predict(network, inputs)


def in_dtype(network: nn.Module, dtype: torch.dtype) -> Variant:
    """A network of this dtype, in eval mode; images are cast to it, token ids stay."""
    network.eval()

    def run(inputs: Any) -> Tensor:
        return predict(network, inputs.to(dtype) if isinstance(inputs, Tensor) else inputs)

    return run


def compiled(network: nn.Module) -> Variant:
    """The network under torch.compile, in eval mode. The first call at each batch size compiles, in the warm-up."""
    network.eval()
    program = torch.compile(network, dynamic=False)
    return lambda inputs: predict(program, inputs)


def onnx(path: str | Path) -> Variant:
    """A network in an ONNX file, under onnxruntime on the CPU with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Any) -> Tensor:
        arrays = inputs if isinstance(inputs, dict) else {names[0]: inputs}
        return torch.from_numpy(session.run(None, {name: arrays[name].numpy() for name in names})[0])

    return run


def repeated(example: Any, size: int) -> Any:
    """A batch of `size` copies of the first row."""
    if isinstance(example, dict):
        return {key: repeated(value, size) for key, value in example.items()}
    return example[:1].expand(size, *example.shape[1:]).contiguous()


def device_name(device: torch.device) -> str:
    """What the device is called: "NVIDIA H100", or for a CPU the processor's name where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _device(batch: Any) -> torch.device:
    return next(iter(batch.values())).device if isinstance(batch, dict) else batch.device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
