"""The models that `benchmark_step.py` takes, PDP on them, and how long something done to them takes."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pruneexp.building import build
from pruneexp.cli import compose
from pruneexp.datasets.base import DataInfo
from pruneexp.methods.base import Method, Setting
from pruneexp.schedules import Timeline
from pruneexp.tasks.build import task_for

SPARSITY = 0.9
EXCLUDE = ["embeddings", "head"]

Step = Callable[[], None]


def seconds(variants: dict[str, Step], arguments: argparse.Namespace) -> dict[str, float]:
    """The median time of each variant, measured in turn."""
    device = torch.device(arguments.device)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in variants}
    for measured in range(-2, arguments.rounds):  # two rounds of warm-up
        for name, variant in variants.items():
            synchronise(device)
            start = clock()
            variant()
            synchronise(device)
            if measured >= 0:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def network(name: str, image_size: int, device: torch.device) -> tuple[nn.Module, DataInfo]:
    """A model with random weights: BERT by the shape of its config, images by their size."""
    if name == "bert-base":
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig()).to(device), DataInfo("text", 2, ("accuracy",))
    info = DataInfo("image", 1000 if image_size > 64 else 10, ("accuracy",), channels=3, image_size=image_size)
    return build(compose([f"model={name}"])["model"], "model").network(info, pretrained=False).to(device), info


def pdp_on(model: nn.Module, info: DataInfo, overrides: list[str]) -> Method:
    """PDP set up on a model, at its final sparsity from the first step."""
    config = compose(["method=pdp", f"sparsity={SPARSITY}", "schedule=constant", *overrides])
    method = build(config["method"], "method")
    task = task_for(info, label_smoothing=0.0)
    method.setup(model, Setting(task=task, batches=[], timeline=Timeline(1000, 1_000_000), seed=0))
    return method
