"""`prune-run`: the command line. The only file that imports hydra.

torch is imported inside functions, so that `prune-run --help` and `prune-run --cfg job` answer at once.
"""

import csv
import difflib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pruneexp.config import Config, ConfigError, finished_summary, normalised, run_folder
from pruneexp.credentials import redacted
from pruneexp.leftovers import clear_leftovers

HERE = Path(__file__).resolve().parent
CONFIGS = HERE / "configs" if (HERE / "configs").is_dir() else HERE.parent / "configs"


def main() -> None:
    """Runs one experiment or a sweep. Exits 0 when all is done, 2 on bad input, 1 on a failure, 128 + n on signal n."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
        return
    if {"-m", "--multirun"} & set(sys.argv[1:]) and "--cfg" in sys.argv[1:]:
        _exit(2, "--cfg: shows the options of one run; leave -m out and give each option one value")
    # Hydra's parser takes no options on both sides of a flag: a=1 -m b=1,2 would end in its usage.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand us the exceptions; we print one line instead of Hydra's several
    try:
        _compose_and_run()
    except (HydraException, OmegaConfBaseException) as error:
        _exit(2, _config_message(error))
    except SweepFailure as failure:
        _exit(
            failure.exit_code,
            f"{len(SweepFailure.jobs)} of the jobs failed; the others are done. The same command runs what is missing",
        )
    except KeyboardInterrupt:
        _exit(130, "stopped")


HELP = """\
prune-run trains a model, prunes it, and leaves a folder with the result.

  prune-run                             digits, ResNet-20, PDP, 90 % sparsity; no network needed
  prune-run method=gmp model=resnet18 dataset=cifar10 sparsity=0.95 epochs=60
  prune-run -m method=pdp,gmp model=resnet20 sparsity=0.8,0.9 seed=1,2,3
  prune-run model=bert dataset=glue/mrpc method=pdp sparsity=0.5
  prune-run model=bert dataset=glue/mrpc auxiliary=glue/stsb auxiliary.weight=0.5 method=gmp sparsity=0.9

  -m, --multirun      run every combination of comma-separated values
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
    choices = _choices()
    groups = [
        textwrap.fill(
            ", ".join(sorted(choices[group])), 98, initial_indent=f"  {group:<11} ", subsequent_indent=" " * 14
        )
        for group in sorted(choices)
    ]
    text = (CONFIGS / "run.yaml").read_text()
    options = text[text.index("\nsparsity:") : text.index("\nhydra:")].strip()
    return HELP.format(groups="\n".join(groups), options=textwrap.indent(options, "  "))


def _choices() -> dict[str, set[str]]:
    """The options of each group, from our configs and those of --config-dir."""
    folders = [CONFIGS, *(Path(value) for key, value in pairwise(sys.argv[1:]) if key in ("--config-dir", "-cd"))]
    choices: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/**/*.yaml"):
            group, *rest = file.relative_to(folder).with_suffix("").parts
            if rest[-1].startswith("_"):
                continue  # a part that other files of the group are made of
            choices.setdefault(group, set()).add("/".join(rest))
    return choices


@hydra.main(config_path=str(CONFIGS), config_name="run", version_base="1.3")
def _compose_and_run(composed: DictConfig) -> None:
    job = HydraConfig.get()
    multirun = job.mode == RunMode.MULTIRUN
    try:
        config = to_config(composed, job.runtime.choices, job.overrides.task)
        config["group"] = config["group"] or (Path(job.sweep.dir).name if multirun else config["experiment_name"])
        _run_job(config)
    except Exception as error:
        code, message = _failure(error)
        if not multirun or code >= 128:
            if message is None:
                raise
            _exit(code, message, anywhere=getattr(error, "on_any_process", False))
        if message is None:
            traceback.print_exc()
        _print_error(f"job {job.job.num} ({' '.join(job.overrides.task)}): {message or repr(error)}")
        raise SweepFailure(code, job.job.num) from error


def to_config(composed: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """The composed config as plain, complete, normalised dicts; `choices` holds the chosen option of each group."""
    config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    kept = {group: str(choice) for group, choice in choices.items() if not group.startswith("hydra") and choice}
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    return normalised({**config, "choices": kept}, given)


def compose(overrides: list[str]) -> Config:
    """The config that `prune-run <overrides>` would run, for scripts and tests."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("run", overrides=overrides, return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    with open_dict(composed):
        del composed["hydra"]
    return to_config(composed, choices, overrides)


def _run_job(config: Config) -> None:
    """Prints the result of a run, after training where it is not there yet."""
    from rich.console import Console

    from pruneexp.report.console import layer_table, summary_table

    is_main = int(os.environ.get("RANK", "0")) == 0
    console = Console(highlight=False, quiet=not is_main)
    folder = run_folder(config)
    summary = None if config["force"] else finished_summary(folder)
    if summary is not None and is_main:
        clear_leftovers(folder)
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


class SweepFailure(RuntimeError):
    """A job of a sweep failed; its message has been printed."""

    jobs: ClassVar[set[int]] = set()  # that failed in this process

    def __init__(self, exit_code: int, job: int) -> None:
        super().__init__(exit_code, job)
        self.exit_code = exit_code
        self.jobs.add(job)


def _failure(error: Exception) -> tuple[int, str | None]:
    """The exit code of an exception and the line to print; None for a defect of ours, where a traceback is wanted."""
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
        return 2, _config_message(error)
    from pruneexp.failures import TrainingError
    from pruneexp.signals import Interrupted

    if isinstance(error, Interrupted):
        return error.exit_code, str(error)
    if isinstance(error, TrainingError):
        return 1, str(error)
    if isinstance(error, OSError):
        return 1, f"{error.strerror or error}: {error.filename or 'while writing'}; finished runs are safe"
    return 1, None


def _config_message(error: Exception) -> str:
    """One line that names key, value and remedy."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.partition("/")
        return f"{group}={choice}: there is no such {group}; " + _suggestion(choice, _choices().get(group, set()))
    message = str(error)
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", message)
    if unknown:
        key = unknown.group(1) or unknown.group(2)
        return f"{key}: there is no such option; " + _suggestion(key, [*_known_keys(), *_choices()])
    if isinstance(error, OmegaConfBaseException) and error.full_key:  # an unknown interpolation, a missing value
        return f"{error.full_key}: {message.splitlines()[0]}; give it a value"
    return " ".join(message.split())


MANY = 40
"""More names than this are no help in a message."""


def _suggestion(wrong: str, options: Collection[str]) -> str:
    close = difflib.get_close_matches(wrong, sorted(options), n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not options:
        return "prune-run --help lists what there is"
    if len(options) > MANY:
        return "the same command with --cfg job, and without this option, shows all there are"
    return f"want one of {', '.join(sorted(options))}"


def _known_keys() -> list[str]:
    """The dotted names of all options of the default config."""

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        return [key for name, value in node.items() for key in walk(value, f"{path}.{name}" if path else str(name))]

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("run")
    return walk(OmegaConf.to_container(composed, resolve=False), "")


def _print_error(message: str, *, anywhere: bool = False) -> None:
    """anywhere: not on the first process only."""
    if anywhere or int(os.environ.get("RANK", "0")) == 0:
        print(f"prune-run: {redacted(message)}", file=sys.stderr)


def _exit(code: int, message: str, *, anywhere: bool = False) -> None:
    _print_error(message, anywhere=anywhere)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
