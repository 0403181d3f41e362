"""What all tests share: one thread, and public data files where there are such."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Small tensors are slower on several threads, and sums then depend on how many there are.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data files that are no part of the repository; skips the test where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PRUNEEXP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no public data files in {folder}; name their folder in PRUNEEXP_DATA")
    return folder


def unpacked(shared_data: Path, name: str, folder: Path) -> Path:
    """`folder`, holding cifar-10 or cifar-100 in the official binary layout."""
    script = shared_data / "unpack_cifar.py"
    if not script.is_file():
        pytest.skip(f"no {script}")
    subprocess.run([sys.executable, str(script), name, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def cifar10_root(shared_data, tmp_path_factory) -> Path:
    """A folder with cifar-10-batches-bin in it."""
    return unpacked(shared_data, "cifar-10", tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="session")
def cifar100_root(shared_data, tmp_path_factory) -> Path:
    """A folder with cifar-100-binary in it; a quarter of the training images."""
    return unpacked(shared_data, "cifar-100", tmp_path_factory.mktemp("cifar100"))


@pytest.fixture
def no_wandb_account(tmp_path, monkeypatch):
    """No key for W&B anywhere, and what it writes beside a run stays in the temporary folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def log_handlers_as_they_were():
    """A test that runs the command line in this process sets up logging; the next one must not see it."""
    logger = logging.getLogger("pruneexp")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_service_of_an_earlier_test():
    """W&B's service goes with the test that started it: processes of later tests would join it (WANDB_SERVICE)."""
    yield
    if "WANDB_SERVICE" in os.environ:
        import wandb

        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)


SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ffn_size": 32, "positions": 128, "vocab_size": 60}
TINY = ["model=bert_tiny", "model.dropout=0.1", *(f"model.{key}={value}" for key, value in SIZES.items())]
SHORT = ["batch_size=8", "epochs=2", "dense=none", "logger=none", "device=cpu"]
ANIMALS = ("cat", "dog", "hen", "cow")


@pytest.fixture
def texts(tmp_path):
    """Options of a target with two classes and of a regression beside it, in files."""
    kinds = {"classes": lambda number: ANIMALS[number % 2], "values": lambda number: number % 5 / 2}
    for name, label in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        for split, count in (("train", 24), ("dev", 10), ("test", 12)):
            rows = [
                {"text": f"the {ANIMALS[number % 2]} has {number % 5} legs", "label": label(number)}
                for number in range(count)
            ]
            (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    target = ["dataset=text_classification", f"dataset.path={tmp_path / 'classes'}", "dataset.max_length=16"]
    values = [f"auxiliary.path={tmp_path / 'values'}", "auxiliary.regression=true", "auxiliary.metrics=[pearson]"]
    return [*TINY, *SHORT, *target, "auxiliary=text_classification", *values, "auxiliary.max_length=16"]
