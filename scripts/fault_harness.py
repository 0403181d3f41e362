"""Kills short runs at many moments, starts them again with the same command, and compares with undisturbed ones.

    python scripts/fault_harness.py                         50 moments of each kind; about half an hour on one core
    python scripts/fault_harness.py --moments 6 --kinds vision-hard,export
    python scripts/fault_harness.py --every-operation --kinds vision-soft

Half of the moments are points in time, uniform over an undisturbed run; a SIGKILL comes from outside. The other half
are file operations (opening to write, renaming, removing, making a folder): the process kills itself right before the
n-th, and half of the time a file that is about to be renamed is first cut at a random byte, as by a death in mid-write.
After the restart every file must be what the undisturbed run wrote, bit for bit but for times, with nothing beside it.
Of a trial that went wrong, the moment is printed, what the killed process left, and what is other than it should be.

Processes are forked from one that has imported everything: a run then takes a second instead of ten. Exits 1 if any
trial went wrong.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fault_comparison import content, difference, files
from fault_killer import NEVER, Killer, Moment, below

IMAGES = ["dataset.max_examples=120", "batch_size=40", "epochs=2", "logger=none", "device=cpu"]
SIZES = [f"model.{size}" for size in ("hidden_size=16", "num_layers=2", "num_heads=2", "ffn_size=32", "vocab_size=300")]
TEXTS = ["model=bert_tiny", *SIZES, "dataset=text_embedded", "dataset.max_length=16", "optimizer=adamw"]
OFTEN = ["training.checkpoint_minutes=0"]  # a checkpoint at every step
ONE = ["dense=none"]

KINDS = {
    "vision-hard": [*IMAGES, *ONE, *OFTEN, "method=gmp"],
    "vision-soft": [*IMAGES, *OFTEN, "method=pdp", "dense_run.epochs=1"],
    "vision-learned": [*IMAGES, *ONE, *OFTEN, "method=str", "training.ema_decay=0.9"],
    "vision-nm": [*IMAGES, *ONE, *OFTEN, "method=sr_ste"],
    "text-hard": [*IMAGES, *TEXTS, *ONE, *OFTEN, "method=movement"],
    "text-soft": [*IMAGES, *TEXTS, *ONE, *OFTEN, "method=pdp"],
    "text-gated": [*IMAGES, *TEXTS, *ONE, *OFTEN, "method=cofi"],
    "two-tasks": [
        *(*IMAGES, *TEXTS, *ONE, *OFTEN, "method=pdp", "auxiliary=text_embedded", "auxiliary.label=module"),
        *("auxiliary.max_examples=60", "auxiliary.max_length=16", "multi_task.alternate=true"),
    ],
    "distilled": [*IMAGES, *OFTEN, "method=gmp", "distillation=logits", "dense_run.epochs=1"],
    "export": ["--runs", "2", "--batch-sizes", "1", "--device", "cpu", "--compressed"],
}
EXPORTED = [*IMAGES, *ONE, "method=magnitude", "pattern=channel", "sparsity=0.5", "epochs=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--moments", type=int, default=50, help="to kill each kind at")
    parser.add_argument("--every-operation", action="store_true", help="instead: kill before each file operation once")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated: " + ", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    _import_everything()
    results = []
    print(f"{'kind':<16} {'run, s':>7} {'file ops':>8} {'killed':>7} {'too late':>8} {'identical':>9} {'wrong':>6}")
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            run = Kind(kind, Path(folder))
            choose = random.Random(f"{kind} {options.seed}")
            result = run.trials(
                run.every_operation() if options.every_operation else run.random_moments(options.moments, choose)
            )
        results.append(result)
        print(
            f"{kind:<16} {result['seconds']:>7.2f} {result['operations']:>8} {result['killed']:>7} "
            f"{result['too_late']:>8} {result['identical']:>9} {len(result['wrong']):>6}",
            flush=True,
        )
        for wrong in result["wrong"]:
            print(f"    {wrong}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(result["wrong"] for result in results))


def _import_everything() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    import torch
    import transformers  # noqa: F401

    import pruneexp.experiment
    import pruneexp.export.command
    import pruneexp.export.steps  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # what is here by now is no garbage: children need not look at it


class Kind:
    """A kind of run: its command, and what an undisturbed one leaves."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.arguments = name, root, KINDS[name]
        self.source = root / "source"
        if name == "export":
            self._run_well(self.source, prune_run(EXPORTED))
        self._run_well(root / "first", self._command())  # for the modules that it imports
        for module in (root / "modules").read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        began = time.monotonic()
        self._run_well(root / "steady", self._command())
        self.seconds = time.monotonic() - began
        self.operations = int((root / "operations").read_text())
        self.steady = content(root / "steady")

    def _run_well(self, folder: Path, command: Callable[[], None]) -> None:
        if self._run(folder, command):
            raise RuntimeError(f"{self.name}: the undisturbed run failed: {(self.root / 'output').read_text()[-800:]}")

    def random_moments(self, count: int, choose: random.Random) -> Iterator[Moment]:
        """So many moments, half of them points in time and half file operations."""
        for number in range(count):
            if number % 2:
                yield Moment(after=choose.uniform(0, self.seconds))
            else:
                yield Moment(at=choose.randint(1, self.operations), cut=choose.choice([None, choose.random()]))

    def every_operation(self) -> Iterator[Moment]:
        """The moment before each file operation; every second time a file that is about to get its name is cut."""
        for n in range(1, self.operations + 1):
            yield Moment(at=n, cut=0.5 if n % 2 else None)

    def trials(self, moments: Iterable[Moment]) -> dict:
        """Kills at these moments; how often what came of it."""
        result = {"kind": self.name, "seconds": self.seconds, "operations": self.operations}
        result |= {"killed": 0, "too_late": 0, "identical": 0, "wrong": []}
        for moment in moments:
            killed = self._killed(moment)
            result["killed" if killed else "too_late"] += 1
            left = ", ".join(sorted(files(self.root / "killed"))) or "nothing"
            problem = self._problem_after_restart()
            result["identical"] += problem is None
            result["wrong"] += [f"{moment}, which left {left}: {problem}"] if problem else []
            shutil.rmtree(self.root / "killed", ignore_errors=True)
        return result

    def _command(self) -> Callable[[], None]:
        if self.name != "export":
            return prune_run(self.arguments)
        (run,) = self.source.glob("outputs/default/*")
        return prune_export([str(run), "--output", "out", *self.arguments])

    def _killed(self, moment: Moment) -> bool:
        """Whether the kill came before the end."""
        return self._run(self.root / "killed", self._command(), moment) == signal.SIGKILL

    def _problem_after_restart(self) -> str | None:
        """Runs the same command again; None if it leaves what an undisturbed run leaves."""
        status = self._run(self.root / "killed", self._command())
        if status:
            return f"the restart ended with status {status}: {(self.root / 'output').read_text()[-300:]!r}"
        left = content(self.root / "killed")
        if odd := sorted(left.keys() - self.steady.keys()):
            return f"files that an undisturbed run does not leave: {odd}"
        if missing := sorted(self.steady.keys() - left.keys()):
            return f"missing files: {missing}"
        different = [name for name in sorted(left) if left[name] != self.steady[name]]
        return "; ".join(f"{name}{difference(left[name], self.steady[name])}" for name in different) or None

    def _run(self, folder: Path, command: Callable[[], None], moment: Moment = NEVER) -> int:
        """Runs a command in a process and a folder of its own; its exit status, or the signal that ended it."""
        folder.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if child == 0:
            self._in_child(folder, command, Killer(str(folder), moment.at, moment.cut))
        if moment.after is not None:
            time.sleep(moment.after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else os.WTERMSIG(status)

    def _in_child(self, folder: Path, command: Callable[[], None], killer: Killer) -> None:
        os.chdir(folder)
        code = 1
        with (self.root / "output").open("w") as output:
            sys.stdout = sys.stderr = output
            try:
                sys.addaudithook(below(killer, folder))
                command()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException as error:
                print(repr(error))
            output.flush()
        (self.root / "operations").write_text(str(killer.seen))
        (self.root / "modules").write_text("\n".join(sys.modules))
        os._exit(code)


def prune_run(arguments: list[str]) -> Callable[[], None]:
    """`prune-run` with these arguments, to be called."""

    def command() -> None:
        from pruneexp import cli

        sys.argv = ["prune-run", *arguments]
        cli.main()

    return command


def prune_export(arguments: list[str]) -> Callable[[], None]:
    """`prune-export` with these arguments, to be called."""

    def command() -> None:
        from pruneexp.export.command import main as export

        export(arguments)

    return command


if __name__ == "__main__":
    main()
