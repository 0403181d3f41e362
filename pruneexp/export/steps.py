"""From a finished run to a smaller model: load, shrink, compare, test, time, write, read back."""

import copy
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruneexp.checksums import digests
from pruneexp.datasets.order import eval_draws
from pruneexp.devices import check_device
from pruneexp.export.formats import FILES, WRITERS, check_formats
from pruneexp.export.source import Source, first_examples, open_run
from pruneexp.loading import PROCESSOR, load
from pruneexp.measure.flops import macs
from pruneexp.measure.latency import check_timing, compiled, eager, in_dtype, latencies, onnx
from pruneexp.measure.size import compressed_bytes, size_bytes
from pruneexp.models.errors import first_line
from pruneexp.summaries import example_inputs
from pruneexp.surgery.files import WEIGHTS, save_shrunk
from pruneexp.surgery.own_channels import OwnChannels, own_channels, save_own_channels
from pruneexp.surgery.semi_structured import DTYPE, check_gpu, semi_structured
from pruneexp.surgery.shrink import Shrunk, shrink_and_report
from pruneexp.surgery.verify import verify
from pruneexp.tasks.base import predict
from pruneexp.whole_files import write_json

Record = dict[str, Any]

COMPARED = 128  # test examples on which masked and shrunk model are compared in float64
EVALUATED_AT_ONCE = 256


class ExportFailure(RuntimeError):
    """A file that was written and does not read back as the model; one line."""


@dataclass(frozen=True)
class Timing:
    """How to time: batch sizes, timed calls of each variant, and whether to time more than the models as they are.

    compiled: both under torch.compile. semi_structured: the masked model in bfloat16, with its 2:4 sparse linear layers
    dense and in torch's semi-structured format.
    """

    batch_sizes: Sequence[int] = (1, 32)
    runs: int = 30
    compiled: bool = False
    semi_structured: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a number of runs or a batch size that cannot be."""
        check_timing(self.batch_sizes, self.runs)


def export(
    folder: Path,
    output: Path,
    *,
    formats: Sequence[str] = (),
    timing: Timing = Timing(),
    device: str = "auto",
    multiple_of: int = 1,
    channels: str | None = None,
    trust: Collection[str] = (),
) -> Record:
    """Writes the smaller model of a run into the folder `output`, and returns what export.json says of it.

    formats: any of "onnx", "torch_export", "compressed". device: to test and time on. multiple_of: as in
    `shrink_and_report`. channels: a mode of `pruneexp.surgery.own_channels` instead of that. trust: as in
    `pruneexp.load`. An earlier export is replaced, at the end and at once.

    Raises:
        ValueError: the folder holds no run with masks, its files are damaged, its data is not there, nothing can be
            removed, or there is something else at `output`.
        ImportError: a format needs a package that is not installed.
        ExportFailure: a written file does not give the model back.
    """
    if (output.exists() or output.is_symlink()) and not (output / "export.json").is_file():
        raise ValueError(f"--output {output}: exists and is no export; choose another folder")
    check_formats(formats)
    where = _device(device)
    if timing.semi_structured:
        check_gpu(where)
    source = open_run(folder, where, trust)
    example = first_examples(source.splits, 2, torch.device("cpu"))
    shrunk = _shrunk(source, example, multiple_of, channels)
    still_of_use = "compressed" in formats or timing.semi_structured
    if _parameters(shrunk.network) == _parameters(source.network) and not still_of_use:
        raise ValueError(_nothing_to_remove(source))
    error = verify(source.network, shrunk.network, [first_examples(source.splits, COMPARED, torch.device("cpu"))])
    with _replacing_folder(output) as partial:
        _write(source, shrunk, partial)
        written = {name: WRITERS[name](shrunk.network, example, partial / FILES[name]) for name in formats}
        record = {
            "info": source.summary["info"],
            "run": folder.resolve().name,
            "headline": source.task.headline,
            "relative_error": max(error, shrunk.error),
            "kept": [asdict(kept) for kept in shrunk.kept],
            "channels": asdict(shrunk.report) if isinstance(shrunk, OwnChannels) else None,
            "rows": _rows(source, shrunk, where),
            "files": written,
            "latency": _latency(source, shrunk, partial, where, timing),
        }
        record["sha256"] = digests(partial, (WEIGHTS,), source.config)
        write_json(partial / "export.json", record)
        _read_back(shrunk.network, partial, example, trust)
    return {**record, "folder": str(output)}


def _shrunk(source: Source, example: Any, multiple_of: int, channels: str | None) -> Shrunk:
    if channels is None:
        return shrink_and_report(source.network, source.masks, example, multiple_of=multiple_of)
    if multiple_of != 1:
        raise ValueError(f"--multiple-of {multiple_of}: does not go with --channels; leave one out")
    return own_channels(source.network, source.masks, example, mode=channels)


def _nothing_to_remove(source: Source) -> str:
    state = source.network.state_dict()
    packed, dense = compressed_bytes(state, source.masks), size_bytes(state)
    pattern = source.config["choices"].get("pattern", "unstructured")
    return (
        f"{source.folder}: nothing can be removed: no whole channel, head or unit is zero (pattern={pattern}); single "
        f"zeros save space in a file (--compressed: {packed:,} bytes, not {dense:,}) and time only on hardware or "
        "kernels made for them, as for N:M patterns (--semi-structured)"
    )


def _device(name: str) -> torch.device:
    check_device(name)
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _rows(source: Source, shrunk: Shrunk, device: torch.device) -> list[Record]:
    """The models side by side: score on the test split, parameters, MACs of one example, bytes of the weights."""
    masked, dense = _row("masked", source.network, source, device), source.summary["dense"]
    score = dense["value"] if dense and dense["name"] == source.task.headline else None
    return [
        {**masked, "model": "dense", "score": score},
        masked,
        _row("shrunk", shrunk.network, source, device),
    ]


def _row(name: str, network: nn.Module, source: Source, device: torch.device) -> Record:
    network.to(device)
    draws = eval_draws(len(source.splits.test), batch_size=EVALUATED_AT_ONCE)
    score = source.task.evaluate(network, source.splits.test.serve(draws))[source.task.headline]
    counted = macs(network, example_inputs(source.splits, network)).total
    network.cpu()
    return {
        "model": name,
        "score": score,
        "parameters": _parameters(network),
        "macs": counted,
        "bytes": size_bytes(network.state_dict()),
    }


def _latency(source: Source, shrunk: Shrunk, folder: Path, device: torch.device, timing: Timing) -> list[Record]:
    """The time of the masked network, which is that of the dense one too, and of the shrunk one in every form."""
    networks = {"masked": source.network.to(device), "shrunk": shrunk.network.to(device)}
    variants = {name: eager(network) for name, network in networks.items()}
    if timing.semi_structured:
        sparse = semi_structured(networks["masked"])
        halved = copy.deepcopy(networks["masked"]).to(DTYPE)
        variants |= {"masked, bf16": in_dtype(halved, DTYPE), "masked, 2:4 bf16": in_dtype(sparse, DTYPE)}
    if timing.compiled:
        variants |= {f"{name}, compiled": compiled(network) for name, network in networks.items()}
    if (folder / FILES["onnx"]).is_file() and device.type == "cpu":
        variants["shrunk, onnx"] = onnx(folder / FILES["onnx"])
    example = example_inputs(source.splits, source.network)
    try:
        measured = latencies(variants, example, batch_sizes=timing.batch_sizes, runs=timing.runs)
    except Exception as error:  # of the compiler, or of what it needs on this machine
        if not timing.compiled:
            raise
        raise ExportFailure(f"--compile: torch.compile fails here: {first_line(error)}") from error
    for network in networks.values():
        network.cpu()
    return [asdict(row) for row in measured]


def _write(source: Source, shrunk: Shrunk, folder: Path) -> None:
    if isinstance(shrunk, OwnChannels):
        save_own_channels(shrunk, folder)
    else:
        save_shrunk(shrunk.network, folder)
    shutil.copyfile(source.folder / "config.yaml", folder / "config.yaml")
    processor = source.folder / PROCESSOR
    for file in processor.glob("*") if processor.is_dir() else ():
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


@torch.no_grad()
def _read_back(network: nn.Module, folder: Path, example: Any, trust: Collection[str]) -> None:
    """Raises ExportFailure unless the written model gives the very same outputs."""
    try:
        again = load(folder, trust=trust)
    except ValueError as error:
        raise ExportFailure(f"the written model cannot be read back: {error}") from error
    if not torch.equal(predict(again, example), predict(network.eval(), example)):
        raise ExportFailure("the written model does not give the outputs of the shrunk one")


@contextmanager
def _replacing_folder(output: Path) -> Iterator[Path]:
    """A new folder that takes the place of `output` at the end, or is removed if an exception comes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    _clear_after_the_dead(output)
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    old = output.with_name(f".{output.name}.{os.getpid()}.old")
    partial.mkdir()
    try:
        yield partial
        if output.exists():
            output.replace(old)
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _clear_after_the_dead(output: Path) -> None:
    """Removes what killed exports to `output` left, but for an earlier export that they had moved out of the way."""
    for path in sorted(output.parent.glob(f".{output.name}.*")):
        pid, kind = path.suffixes[-2:] if len(path.suffixes) > 1 else ("", "")
        if kind not in (".tmp", ".old") or not pid[1:].isdecimal() or _alive(int(pid[1:])):
            continue
        if kind == ".old" and not output.exists():
            path.replace(output)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    """Whether another process of this number runs here."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # someone else's
    return True
