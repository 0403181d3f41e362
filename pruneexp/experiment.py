"""One experiment, from a config to a finished run: build parts, start dense, train, finalise, measure, write."""

import copy
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from pruneexp.auxiliary import Auxiliary, build_auxiliaries, load_auxiliary, multi_task
from pruneexp.auxiliary_masks import AUXILIARY_MASKS, by_task, compared, read_masks
from pruneexp.checksums import check_config, check_files, read_config
from pruneexp.config import (
    FORMAT,
    Config,
    ConfigError,
    build,
    check_targets,
    dense_config,
    finished_summary,
    run_folder,
)
from pruneexp.datasets.base import DataInfo, Dataset, Draw, Splits
from pruneexp.devices import check_device, check_precision, free_memory, make_accelerator, set_deterministic
from pruneexp.failures import explained
from pruneexp.leftovers import clear_leftovers
from pruneexp.locks import held
from pruneexp.loggers.base import Logger
from pruneexp.masks import Masks
from pruneexp.measure.flops import effective, macs
from pruneexp.measure.size import compressed_bytes, size_bytes, sparsity_table
from pruneexp.methods.base import Method
from pruneexp.models.base import Model
from pruneexp.models.checkpoints import load_weights
from pruneexp.optimizers import Recipe
from pruneexp.report.plots import accuracy_vs_sparsity
from pruneexp.runs import Run, write_table
from pruneexp.surgery.files import STRUCTURE, is_shrunk_transformer, load_shrunk, load_transformer
from pruneexp.tasks.base import Task
from pruneexp.tasks.build import task_for
from pruneexp.tasks.metrics import majority_rate
from pruneexp.trainer import Settings, Trainer

Summary = dict[str, Any]

LOG = logging.getLogger("pruneexp")
COUNTED_TOKENS = 128  # MACs of text models are for one text of this length, as in the CoFi and PDP literature
HEADS = "heads.safetensors"  # file in a run's folder with what its auxiliary tasks have to themselves
REMOTE_CODE = "remote_code"  # stands for the Python files of a hub's model in what a user trusts
PROCESSOR = "processor"  # folder in a run's folder with what reads its texts: tokenizer, and config of a hub's model


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
            "_target_": "pruneexp.trainer.Settings",
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
    finished = None if config["force"] else finished_summary(folder)
    if finished is not None:
        clear_leftovers(folder)
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


def summarise(
    this_run: Run, trainer: Trainer, task: Task, *, test: dict[str, float], dense: Summary | None, masks: Masks
) -> Summary:
    """The summary of a trained model whose saved weights `trainer.model` holds, and layers.csv beside it."""
    config, model, splits = this_run.config, trainer.model, trainer.splits
    state = model.state_dict()
    counted = macs(model, example_inputs(splits, model))
    if this_run.is_main:
        write_table(this_run.folder / "layers.csv", sparsity_table(model, masks, macs=counted.per_weight))
    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    nonzero = sum(int(parameter.count_nonzero()) for parameter in parameters.values())
    prunable = [parameters[name] for name in trainer.parameters]
    zeros = sum(parameter.numel() - int(parameter.count_nonzero()) for parameter in prunable)
    last = this_run.rows()[-1] if this_run.is_main else {}
    validation = {key.removeprefix("validation/"): last[key] for key in last if key.startswith("validation/")}
    return {
        "format": FORMAT,
        "headline": {"name": task.headline, "value": test[task.headline], "split": "test"},
        "dense": dense,
        "test": test,
        "validation": {"final": validation, "best": trainer.progress.best},
        "auxiliary": {name: _auxiliary_summary(trainer, name, masks) for name in trainer.auxiliary},
        "majority_rate": None if splits.info.regression else majority_rate(splits.test.labels),
        "sparsity": {
            "target": config["method"].get("sparsity"),
            "prunable": zeros / sum(p.numel() for p in prunable) if prunable else 0.0,
            "total": (total - nonzero) / total,
        },
        "params": {"total": total, "nonzero": nonzero, "prunable": sum(p.numel() for p in prunable)},
        "macs": {
            "dense": counted.total,
            "effective": effective(counted, parameters),
            "tokens": counted_tokens(model) if splits.info.kind == "text" else None,
        },
        "size_bytes": {"dense": size_bytes(state), "compressed": compressed_bytes(state, masks)},
        "examples": _examples(splits),
        "epochs": config["epochs"],
        "steps": trainer.timeline.total_steps,
        "seed": config["seed"],
        "wall_seconds": trainer.progress.wall_seconds(),
        "resumed_from": trainer.progress.resumed_from,
        "places": this_run.places,
        "method": config["choices"]["method"],
        "model": config["choices"]["model"],
        "dataset": config["choices"]["dataset"],
        "info": asdict(splits.info),
    }


def _auxiliary_summary(trainer: Trainer, name: str, masks: Masks) -> Summary:
    """What the summary says of an auxiliary task. masks: the target's."""
    auxiliary = trainer.auxiliary[name]
    test, headline = trainer.evaluate(auxiliary.splits.test, name), auxiliary.task.headline
    return {
        "headline": {"name": headline, "value": test[headline], "split": "test"},
        "test": test,
        "examples": _examples(auxiliary.splits),
        "weight": auxiliary.weight,
        "batch_size": auxiliary.batch_size,
        "mask": compared(read_masks(trainer.run.folder, name), masks, trainer.parameters),
    }


def _examples(splits: Splits) -> dict[str, int]:
    return {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}


def example_inputs(splits: Splits, model: nn.Module) -> Any:
    """The inputs of one example, for counting: a test image, or a text of `counted_tokens(model)` tokens."""
    batch = next(iter(splits.test.serve([Draw(torch.zeros(1, dtype=torch.int64), slice(0, 1), None)])))
    inputs = batch["inputs"]
    if isinstance(inputs, dict):
        return {key: value[:, :1].repeat(1, counted_tokens(model)) for key, value in inputs.items()}
    return inputs


def counted_tokens(model: nn.Module) -> int:
    """COUNTED_TOKENS, or as many as the model can read."""
    return min(COUNTED_TOKENS, getattr(getattr(model, "config", None), "max_position_embeddings", COUNTED_TOKENS))


def load(folder: str | Path, *, trust: Collection[str] = ()) -> nn.Module:
    """The trained model of a finished run, or the smaller one that `prune-export` made of it; in eval mode on the CPU.

    folder: of a run; of an export; or any with the files that `pruneexp.surgery.files.save_shrunk` writes of a
    transformer, which transformers' own `from_pretrained` cannot read (that module says why). trust: the names of
    classes outside pruneexp that its config.yaml may build, and "remote_code" where Python files that came with a model
    of the Hugging Face hub may run; both run with your rights.

    Raises:
        ValueError: there is no model in the folder, its files are damaged, or it asks for more trust than it has.
    """
    folder = Path(folder)
    if is_shrunk_transformer(folder):
        return load_transformer(folder)
    recipe, info = recipe_of(folder, trust=trust)
    model = recipe.network(info, pretrained=False)
    check_files(folder, _summary_of(folder), "model.safetensors")
    if (folder / STRUCTURE).is_file():
        model = load_shrunk(model, folder)
    else:
        load_weights(model, folder / "model.safetensors", key="folder")
    return model.eval()


def recipe_of(folder: Path, *, trust: Collection[str] = (), edited: bool = False) -> tuple[Model, DataInfo]:
    """The recipe of the model in the folder of a run or of an export, and the form of the data it was made for.

    trust: as in `load`. edited: go by config.yaml also if it was edited after the run.

    Raises:
        ValueError: the folder is neither, or its files are damaged, edited or not to be trusted.
    """
    summary = _summary_of(folder)
    try:
        config = read_config(folder)
        listed = {key: tuple(value) if isinstance(value, list) else value for key, value in summary["info"].items()}
        node = {**config["model"], "checkpoint": None}
        info = DataInfo(**listed)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder}: summary.json or config.yaml is damaged ({reason}); run it again") from error
    if not edited:
        check_config(folder, summary, config)
    check_targets(node, "model", folder / "config.yaml", trust)
    if node.get("trust_remote_code") and REMOTE_CODE not in trust:
        raise ValueError(
            f"{folder / 'config.yaml'}: model.trust_remote_code=true would run Python files that came with the model, "
            f"with your rights; where you trust them, say so: prune-export --trust {REMOTE_CODE}, "
            f'pruneexp.load(folder, trust=["{REMOTE_CODE}"])'
        )
    if (folder / PROCESSOR).is_dir():
        node["name_or_path" if "name_or_path" in node else "tokenizer"] = str(folder / PROCESSOR)
    return build(node, "model"), info


def _summary_of(folder: Path) -> Summary:
    """The summary of a run, or what an export says of itself. Raises ValueError if the folder holds neither."""
    summary = finished_summary(folder) or finished_summary(folder, "export.json")
    if summary is None:
        raise ValueError(f"{folder}: no finished run (it has no summary.json); give the folder of one")
    return summary
