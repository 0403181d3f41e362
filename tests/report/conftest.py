"""Run folders made by hand, small and complete, as prune-run leaves them."""

import copy
import csv
import json

import pytest
import yaml

CONFIG = {
    "sparsity": 0.9,
    "epochs": 4,
    "batch_size": 64,
    "seed": 1,
    "label_smoothing": 0.0,
    "exclude": ["embeddings", "head"],
    "dense": "none",
    "dense_run": {"epochs": None},
    "multi_task": {"alternate": False, "target_weight": None},
    "training": {"accumulate": 1, "ema_decay": None},
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "output_dir": "outputs",
    "experiment_name": "default",
    "group": "sweep-1",
    "force": False,
    "dataset": {"_target_": "pruneexp.datasets.digits.Digits", "fraction": None, "max_examples": None},
    "optimizer": {"_target_": "pruneexp.optimizers.SGD", "learning_rate": 0.1},
    "method": {
        "_target_": "pruneexp.methods.pdp.PDP",
        "sparsity": 0.9,
        "pattern": {"_target_": "pruneexp.patterns.Unstructured"},
        "schedule": {"_target_": "pruneexp.schedules.Polynomial", "end": 0.6},
        "tau": 0.02,
    },
    "model": {"_target_": "pruneexp.models.cifar_resnet.CifarResNet", "depth": 20, "checkpoint": None},
    "logger": {"_target_": "pruneexp.loggers.base.Logger"},
    "choices": {
        "method": "pdp",
        "model": "resnet20",
        "dataset": "digits",
        "pattern": "unstructured",
        "schedule": "cubic",
        "budget": "global",
        "optimizer": "sgd",
        "distillation": "none",
        "auxiliary": "none",
    },
}
TARGETS = {"pdp": "pdp.PDP", "gmp": "magnitude.GMP", "str": "str.STR", "sr_ste": "sr_ste.SRSTE", "dense": "dense.Dense"}
LAYERS = (("conv1.weight", "[4, 1, 3, 3]", 36), ("fc.weight", "[10, 4]", 40))


def set_option(config, name, value):
    """Sets a dotted option; a group's choice, and the sparsity where the method has it."""
    if name in config["choices"]:
        config["choices"][name] = value
        if name in ("model", "dataset"):
            config[name]["_target_"] = f"{name}.{value}"
        if name == "method":
            config["method"]["_target_"] = f"pruneexp.methods.{TARGETS[value]}"
            if value in ("str", "dense"):
                del config["method"]["sparsity"]
            if value == "dense":
                config["method"] = {"_target_": config["method"]["_target_"]}
        return
    if name == "sparsity":
        config["sparsity"] = config["method"]["sparsity"] = value
        return
    *path, last = (["method"] if name.split(".")[0] in ("pattern", "schedule") else []) + name.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


@pytest.fixture
def make_run(tmp_path):
    """Makes a run folder below tmp_path/runs and returns it. score: of the headline, a fraction. Other arguments are
    options by their names, dots as double underscores, in the order in which they are to be set."""
    count = 0

    def make(
        score=0.5,
        *,
        seed=1,
        folder=None,
        finished=True,
        metric="accuracy",
        dense_score=None,
        found=None,
        summary=(),
        **options,
    ):
        nonlocal count
        count += 1
        config = copy.deepcopy(CONFIG)
        config["seed"] = seed
        for name, value in options.items():
            set_option(config, name.replace("__", "."), value)
        choices = config["choices"]
        name = f"{choices['method']}-{choices['model']}-{choices['dataset']}-seed{seed}-{count:08x}"
        path = folder or tmp_path / "runs" / name
        path.mkdir(parents=True)
        sparsity = config["method"].get("sparsity", found or 0.0)
        (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        meta = {
            "commit": "c0ffee" * 6 + "c0ff",
            "command": ["prune-run", f"seed={seed}"],
            "start": f"2026-01-01T00:00:{count:02d}",
        }
        meta |= {
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "platform": "Linux",
            "device": "cpu",
            "threads": 1,
        }
        (path / "meta.json").write_text(json.dumps(meta))
        rows = [
            {
                "step": 5 * epoch,
                "epoch": float(epoch),
                "sparsity/prunable": sparsity * epoch / 4,
                f"validation/{metric}": score,
            }
            for epoch in range(5 if finished else 3)
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with (path / "layers.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "shape", "weights", "zeros", "sparsity", "pruned", "macs"])
            writer.writerows(
                [name, shape, n, int(n * sparsity), sparsity, sparsity > 0, 100] for name, shape, n in LAYERS
            )
        if finished:
            content = {
                "headline": {"name": metric, "value": score, "split": "test"},
                "dense": None if dense_score is None else {"name": metric, "value": dense_score, "split": "test"},
                "test": {"loss": 1.5, metric: score},
                "sparsity": {"target": config["method"].get("sparsity"), "prunable": sparsity, "total": sparsity},
                "params": {"total": 1000, "nonzero": round(1000 * (1 - sparsity)), "prunable": 1000},
                "macs": {"dense": 2_000_000, "effective": round(2_000_000 * (1 - sparsity))},
                "size_bytes": {"dense": 4000, "compressed": round(4000 * (1 - sparsity)) + 125},
                "wall_seconds": 2.5,
                "seed": seed,
                "info": {"kind": "image"},
            }
            (path / "summary.json").write_text(json.dumps(content | dict(summary)))
        return path

    return make
