"""What a summary says of a trained model, computed from its saved weights."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from pruneexp.auxiliary_masks import compared, read_masks
from pruneexp.config import FORMAT
from pruneexp.datasets.base import Draw, Splits
from pruneexp.masks import Masks
from pruneexp.measure.flops import effective, macs
from pruneexp.measure.size import compressed_bytes, size_bytes, sparsity_table
from pruneexp.runs import Run
from pruneexp.tasks.base import Task
from pruneexp.tasks.metrics import majority_rate
from pruneexp.trainer import Trainer
from pruneexp.whole_files import write_table

Summary = dict[str, Any]


COUNTED_TOKENS = 128  # MACs of text models are for one text of this length, as in the CoFi and PDP literature


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
    prunable = [parameters[name] for name in trainer.method.weights]
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
        "mask": compared(read_masks(trainer.run.folder, name), masks, trainer.method.weights),
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
