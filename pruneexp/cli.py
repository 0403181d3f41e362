"""`prune-run`: the command line.

torch is imported inside functions, so that `prune-run --help` and `prune-run --cfg job` answer at once.
"""

import csv
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pruneexp.composing import CONFIGS, choices, compose, config_message, deferred, to_config
from pruneexp.config import Config, ConfigError
from pruneexp.credentials import redacted
from pruneexp.leftovers import finished_earlier
from pruneexp.locks import Busy
from pruneexp.naming import run_folder
from pruneexp.sweeps.state import Board, SomeFailed, Stopped

__all__ = ["CONFIGS", "compose", "help_text", "main"]


def main() -> None:
    """Runs one experiment or a sweep. Exits 0 when all is done, 2 on bad input, 1 on a failure, 128 + n on signal n."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
        return
    multirun = bool({"-m", "--multirun"} & set(sys.argv[1:]))
    if multirun and "--cfg" in sys.argv[1:]:
        _exit(2, "--cfg: shows the options of one run; leave -m out and give each option one value")
    # Hydra's parser takes no options on both sides of a flag: a=1 -m b=1,2 would end in its usage.
    words = [_for_hydra(word, multirun=multirun) for word in sys.argv[1:]]
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand us the exceptions; we print one line instead of Hydra's several
    try:
        _compose_and_run()
    except (HydraException, OmegaConfBaseException) as error:
        _exit(2, config_message(error))
    except ConfigError as error:
        _exit(2, str(error))
    except Busy as error:
        _exit(1, str(error))
    except SomeFailed as failed:
        for complaint in failed.complaints:
            _print_error(complaint)
        _exit(failed.exit_code, str(failed))
    except Stopped as stopped:
        _exit(stopped.exit_code, "stopped; the same command goes on")
    except KeyboardInterrupt:
        _exit(130, "stopped")


def _for_hydra(word: str, *, multirun: bool) -> str:
    """A word of the command line as Hydra reads it.

    --fail-fast is an option, and a dimension of a search is text. With -m, an option of a choice (dataset.root=...) is
    for the runs, since the choice may come with the table or differ between them.
    """
    if word == "--fail-fast":
        return "sweep.fail_fast=true"
    key, equals, value = word.partition("=")
    if key.startswith("search.space.") and equals:
        return f"++{key}='{value}'"
    return deferred(word) if multirun else word


HELP = """\
prune-run trains a model, prunes it, and leaves a folder with the result.

  prune-run                             digits, ResNet-20, PDP, 90 % sparsity; no network needed
  prune-run method=gmp model=resnet18 dataset=cifar10 sparsity=0.95 epochs=60
  prune-run -m method=pdp,gmp model=resnet20 sparsity=0.8,0.9 seed=1,2,3
  prune-run model=bert dataset=glue/mrpc method=pdp sparsity=0.5
  prune-run model=bert dataset=glue/mrpc auxiliary=glue/stsb auxiliary.weight=0.5 method=gmp sparsity=0.9

  -m, --multirun      run every combination of comma-separated values; -m table=NAME runs a table's (docs/sweeps.md)
  --fail-fast         with -m: start no further run once one has failed
  --cfg job           show all options of a command with their values, and do nothing
  --config-dir DIR    look for configs in DIR too
  --hydra-help        what else Hydra can do

Choices (group=choice)
{groups}

Options (option=value) and their defaults; those of a choice are shown by --cfg job
{options}
"""


def help_text() -> str:
    """What `prune-run --help` prints: the choices on disk, and the options as run.yaml explains them.

    Hydra's own help composes every file there is, which takes several times as long as all the rest.
    """
    groups = [
        textwrap.fill(", ".join(sorted(names)), 98, initial_indent=f"  {group:<11} ", subsequent_indent=" " * 14)
        for group, names in sorted(choices().items())
        if group != "hydra/sweeper"
    ]
    text = (CONFIGS / "run.yaml").read_text()
    options = text[text.index("\nsparsity:") : text.index("\nhydra:")].strip()
    return HELP.format(groups="\n".join(groups), options=textwrap.indent(options, "  "))


@hydra.main(config_path=str(CONFIGS), config_name="run", version_base="1.3")
def _compose_and_run(composed: DictConfig) -> Any:
    job = HydraConfig.get()
    multirun = job.mode == RunMode.MULTIRUN
    try:
        if not multirun:
            _check_single(composed)
        typed = OmegaConf.to_container(job.overrides.task)  # as text: what they interpolate is resolved in its place
        overrides = [word for word in typed if not word.startswith("sweep.")]
        config = to_config(composed, job.runtime.choices, overrides)
        config["group"] = config["group"] or config["experiment_name"]
        if multirun:
            return _run_job_of_sweep(config, overrides, OmegaConf.to_container(composed.sweep))
        _run_job(config)
    except Exception as error:
        code, message = explain(error)
        if message is None or multirun:
            raise
        _exit(code, message, anywhere=getattr(error, "on_any_process", False))


def _check_single(composed: DictConfig) -> None:
    """Raises ConfigError for options that only -m knows what to do with."""
    for key in ("table", "search"):
        if composed.get(key):
            choice = HydraConfig.get().runtime.choices.get(key)
            raise ConfigError(f"{key}={choice}: is for sweeps; put -m before it")


def _run_job_of_sweep(config: Config, overrides: list[str], sweep: Config) -> Config:
    """What a job of a sweep came to, for the process that started it."""
    from pruneexp.sweeps.job import run_job

    if sweep["board"] is None:
        raise ConfigError("hydra/sweeper: is not ours; leave it out")
    return run_job(config, overrides, board=Board(Path(sweep["board"])), number=sweep["job"], explain=explain)


def _run_job(config: Config) -> None:
    """Prints the result of a run, after training where it is not there yet."""
    from rich.console import Console

    from pruneexp.report.console import layer_table, summary_table

    is_main = int(os.environ.get("RANK", "0")) == 0
    console = Console(highlight=False, quiet=not is_main)
    folder = run_folder(config)
    summary = finished_earlier(config)
    if summary is None:
        console.print(f"folder  {folder}", soft_wrap=True)  # before the imports, which take seconds
        from pruneexp.display import setup_logging
        from pruneexp.experiment import run

        setup_logging(visible=is_main)
        folder, summary = run(config)
        if summary["params"]["prunable"]:
            with (folder / "layers.csv").open() as file:
                console.print(layer_table(list(csv.DictReader(file))))
    else:
        console.print("finished earlier; force=true starts over")
    console.print(summary_table(summary))
    console.print(f"plot    {folder / 'accuracy_vs_sparsity.png'}\nfolder  {folder}", soft_wrap=True)


def explain(error: Exception) -> tuple[int, str | None]:
    """The exit code of an exception and the line to print; None for a defect of ours, where a traceback is wanted."""
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
        return 2, config_message(error)
    if isinstance(error, Busy):
        return 1, str(error)
    from pruneexp.failures import TrainingError
    from pruneexp.signals import Interrupted

    if isinstance(error, Interrupted):
        return error.exit_code, str(error)
    if isinstance(error, TrainingError):
        return 1, str(error)
    if isinstance(error, OSError):
        return 1, f"{error.strerror or error}: {error.filename or 'while writing'}; finished runs are safe"
    return 1, None


def _print_error(message: str, *, anywhere: bool = False) -> None:
    """anywhere: not on the first process only."""
    if anywhere or int(os.environ.get("RANK", "0")) == 0:
        print(f"prune-run: {redacted(message)}", file=sys.stderr)


def _exit(code: int, message: str, *, anywhere: bool = False) -> None:
    _print_error(message, anywhere=anywhere)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
