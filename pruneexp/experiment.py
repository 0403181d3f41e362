"""One experiment, from a config to a finished run: build parts, start dense, train, finalise, measure, write."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from pruneexp.auxiliary import Auxiliary, build_auxiliaries, load_auxiliary, multi_task
from pruneexp.auxiliary_masks import AUXILIARY_MASKS, by_task
from pruneexp.building import build
from pruneexp.checksums import check_files
from pruneexp.config import Config, ConfigError, dense_config, finished_summary
from pruneexp.datasets.base import Dataset
from pruneexp.devices import check_device, check_precision, free_memory, make_accelerator, set_deterministic
from pruneexp.failures import explained
from pruneexp.leftovers import finished_earlier
from pruneexp.loading import PROCESSOR, REMOTE_CODE, load
from pruneexp.locks import held
from pruneexp.loggers.base import Logger
from pruneexp.methods.base import Method
from pruneexp.models.base import Model
from pruneexp.models.checkpoints import load_weights
from pruneexp.naming import run_folder
from pruneexp.optimizers import Recipe
from pruneexp.report.plots import accuracy_vs_sparsity
from pruneexp.runs import Run
from pruneexp.summaries import Summary, summarise
from pruneexp.tasks.base import Task
from pruneexp.tasks.build import task_for
from pruneexp.trainer import Trainer
from pruneexp.training_settings import Settings

LOG = logging.getLogger("pruneexp")
HEADS = "heads.safetensors"  # file in a run's folder with what its auxiliary tasks have to themselves


@dataclass(frozen=True)
class Parts:
    """The objects a config names. Making them reads no data."""

    model: Model
    dataset: Dataset
    method: Method
    recipe: Recipe
    logger: Logger
    settings: Settings
    auxiliary: dict[str, Auxiliary]


def build_parts(config: Config) -> Parts:
    """The parts of an experiment, checked against each other and against this machine.

    Raises:
        ConfigError: a part is not as its class wants it, or the parts do not fit.
    """
    dense = config["dense"]
    settings = build(
        {
            "_target_": "pruneexp.training_settings.Settings",
            **config["training"],
            **{key: config[key] for key in ("epochs", "batch_size", "compile", "seed")},
            "evaluate_first": dense != "none",
            "alternate": bool(config["multi_task"]["alternate"]),
        },
        "training",
    )
    names = ("model", "dataset", "method", "optimizer", "logger")
    model, dataset, method, recipe, run_logger = (build(config[name], name) for name in names)
    if model.kind != dataset.kind:
        choices = config["choices"]
        raise ConfigError(
            f"model={choices['model']}: reads {model.kind}s, but dataset={choices['dataset']} holds {dataset.kind}s; "
            f"take a dataset of {model.kind}s or a model that reads {dataset.kind}s"
        )
    if dense not in ("train", "pretrained", "none") and not (Path(dense) / "summary.json").is_file():
        raise ConfigError(f"dense={dense}: want train, pretrained, none, or the folder of a finished run")
    try:
        check_device(config["device"])
        check_precision(config["precision"])
        dataset.check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    auxiliary = build_auxiliaries(config, dataset.kind)
    return Parts(model, dataset, method, recipe, run_logger, settings, auxiliary)


def run(config: Config) -> tuple[Path, Summary]:
    """The folder and the summary of the run that a config describes, trained now where that is not done yet.

    If another process trains the same run, or the dense run that it starts from, this one waits for it.

    Raises:
        ConfigError: the config or the data cannot work.
        TrainingError, Interrupted: as the trainer.
        Busy: another process has the run, and this one does not wait, being one of several that train together.
    """
    parts = build_parts(config)
    folder = run_folder(config)
    with held(folder, wait=True, on_wait=lambda busy: LOG.info("%s; waiting for it", busy)):
        return _run(config, parts, folder)


def _run(config: Config, parts: Parts, folder: Path) -> tuple[Path, Summary]:
    """`run` with the folder to itself."""
    finished = finished_earlier(config)
    if finished is not None:
        return folder, finished
    dense_folder = None
    if config["dense"] == "train":
        dense_folder, _ = run({**dense_config(config), "force": False})
    elif config["dense"] not in ("none", "pretrained"):
        dense_folder = Path(config["dense"])
    set_deterministic(config["deterministic"])
    accelerator = make_accelerator(
        config["device"],
        config["precision"],
        find_unused=parts.settings.alternate or parts.method.staged,  # the heads of the other tasks
    )
    this_run = Run(folder, config, parts.logger, is_main=accelerator.is_main_process)
    if config["force"]:
        this_run.clear()
    exit_code = 1
    try:
        with explained(config, folder):
            summary = _train(parts, this_run, accelerator, dense_folder)
        exit_code = 0
    finally:
        parts.logger.close(exit_code)
        free_memory()
    return folder, summary


def _train(parts: Parts, this_run: Run, accelerator: Accelerator, dense_folder: Path | None) -> Summary:
    config = this_run.config
    torch.manual_seed(config["seed"])
    try:
        with accelerator.main_process_first():  # where it downloads, once is enough
            splits = parts.dataset.load(device=accelerator.device, tokenizer=parts.model.tokenizer)
            auxiliary = {
                name: load_auxiliary(one, config, parts.model, target=splits.info, device=accelerator.device)
                for name, one in parts.auxiliary.items()
            }
        task = task_for(splits.info, label_smoothing=float(config["label_smoothing"]))
        if dense_folder is None:
            model = parts.model.build(splits.info)
        else:
            model = parts.model.network(splits.info, pretrained=False)
            check_files(dense_folder, finished_summary(dense_folder), "model.safetensors", HEADS)
            load_weights(model, dense_folder / "model.safetensors", key="dense")
        task = with_teacher(config, task, model, accelerator)
        if auxiliary:
            task = multi_task(task, auxiliary, model, parts.model, weight=config["multi_task"]["target_weight"])
            if dense_folder is not None and (dense_folder / HEADS).is_file():
                task.heads.load(dense_folder / HEADS)
        trainer = Trainer(
            model,
            splits,
            task=task,
            method=parts.method,
            recipe=parts.recipe,
            settings=parts.settings,
            accelerator=accelerator,
            run=this_run,
            auxiliary=auxiliary,
        )
        dense = _dense_reference(config, dense_folder, trainer, task)
        trainer.prepare()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    masks = trainer.fit()
    if this_run.is_main:
        this_run.save_weights(trainer.model.state_dict(), masks)
        if auxiliary:
            this_run.save_tensors(HEADS, task.heads.tensors())
        if parts.method.auxiliary_masks:
            this_run.save_tensors(AUXILIARY_MASKS, by_task(parts.method.auxiliary_masks))
        parts.model.save_processor(this_run.folder / PROCESSOR)
    accelerator.wait_for_everyone()
    # From here on every number comes from the saved files.
    trainer.model.load_state_dict(load_file(this_run.folder / "model.safetensors"))
    if auxiliary:
        task.heads.load(this_run.folder / HEADS)
    masks = load_file(this_run.folder / "masks.safetensors")
    test = trainer.evaluate(splits.test)
    summary = summarise(this_run, trainer, task, test=test, dense=dense, masks=masks)
    if this_run.is_main:
        rows = this_run.rows()
        plot = this_run.folder / "accuracy_vs_sparsity.png"
        accuracy_vs_sparsity(
            rows,
            plot,
            metric=task.headline,
            dense=dense and dense["value"],
            title=this_run.folder.name,
            test=test[task.headline],
        )
        this_run.finish(summary)
    accelerator.wait_for_everyone()
    return this_run.summary()


def with_teacher(config: Config, task: Task, model: nn.Module, accelerator: Accelerator) -> Task:
    """The task, wrapped in the distillation that the config asks for, if it does.

    model: what pruning starts from; a copy of it is the teacher with distillation.teacher=dense.

    Raises:
        ValueError: there is no such teacher.
    """
    node = config["distillation"]
    if not node:
        return task
    if node["teacher"] == "dense":
        if config["dense"] == "none":
            raise ValueError(
                "distillation.teacher=dense: dense=none leaves no dense model; set dense=train, or name a run"
            )
        teacher = copy.deepcopy(model)
    else:
        teacher = load_teacher(node["teacher"], config)
    teacher = accelerator.prepare_model(teacher.eval().requires_grad_(False), evaluation_mode=True)
    distillation = build(node, "distillation", task=task, teacher_model=teacher)
    distillation.check(model)
    return distillation


def load_teacher(folder: str, config: Config) -> nn.Module:
    """The model of a run as a teacher. It may be of a class that the config of the run to come names itself.

    Raises:
        ValueError: there is no such run, or its files are damaged.
    """
    own = config["model"]
    named = [own["_target_"], *([REMOTE_CODE] if own.get("trust_remote_code") else [])]
    try:
        return load(folder, trust=named)
    except ValueError as error:
        raise ValueError(f"distillation.teacher={folder}: {str(error).removeprefix(f'{folder}: ')}") from error


def _dense_reference(config: Config, folder: Path | None, trainer: Trainer, task: Task) -> Summary | None:
    """The test score of the dense model that pruning starts from, None if it starts from no trained model."""
    if folder is not None:
        return finished_summary(folder)["headline"]
    if config["dense"] == "pretrained":
        value = trainer.evaluate(trainer.splits.test)[task.headline]
        return {"name": task.headline, "value": value, "split": "test"}
    return None
