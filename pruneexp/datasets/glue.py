"""The nine tasks of GLUE (Wang et al. 2018, arXiv 1804.07461).

The labels of GLUE's test sets are hidden, so papers report on the public development set. It is the `test` split here:
validation, to choose on, is carved out of the training set. Test files are never read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruneexp.datasets import tables
from pruneexp.datasets.base import DataInfo
from pruneexp.datasets.labels import class_labels, values
from pruneexp.datasets.text import TextDataset, Texts

_HUB_REPOSITORY = "nyu-mll/glue"


@dataclass(frozen=True)
class Task:
    """Columns, classes in the order of their numbers (none for regression) and GLUE's own metrics, headline first."""

    columns: tuple[str, ...]
    class_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
TASKS: Mapping[str, Task] = {
    "cola": Task(("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": Task(("sentence",), ("negative", "positive")),
    "mrpc": Task(_SENTENCES, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "stsb": Task(_SENTENCES, (), ("pearson", "spearman")),
    "qqp": Task(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "mnli": Task(("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": Task(("question", "sentence"), _ENTAILMENT),
    "rte": Task(_SENTENCES, _ENTAILMENT),
    "wnli": Task(_SENTENCES, ("not_entailment", "entailment")),
}


class Glue(TextDataset):
    """A task of GLUE, from files in `path` or from the Hugging Face hub."""

    def __init__(self, *, task: str, path: str | None, report_split: str, **common: Any) -> None:
        """common: the options of `TextDataset`."""
        if task not in TASKS:
            raise ValueError(f"dataset.task={task}: give one of {', '.join(TASKS)}")
        splits = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        if report_split not in splits:
            raise ValueError(f"dataset.report_split={report_split}: {task} has {' and '.join(splits)}")
        super().__init__(**common)
        self.name, self.task, self.report_split = task, TASKS[task], report_split
        self.path = None if path is None else Path(path).expanduser()

    def check(self) -> None:
        """Raises ValueError if files are missing in `path`. The hub is not asked."""
        if self.path is None:
            return
        if not self.path.is_dir():
            raise ValueError(
                f"dataset.path={self.path}: no folder there; give the folder that holds train.parquet, or null"
            )
        for split in ("train", self.report_split):
            if not tables.find(self.path, split):
                files = f"no file {split}.parquet (or .jsonl, .csv, .tsv) there"
                raise ValueError(f"dataset.path={self.path}: {files}; add it, or give null for the Hugging Face hub")

    def read(self) -> tuple[dict[str, Texts], DataInfo]:
        """The sources train and test, which is GLUE's development set; see the base class."""
        sources = {"train": self._texts("train"), "test": self._texts(self.report_split)}
        task = self.task
        info = DataInfo(
            kind=self.kind,
            num_outputs=max(1, len(task.class_names)),
            metrics=task.metrics,
            regression=not task.class_names,
            class_names=task.class_names,
        )
        return sources, info

    def _texts(self, split: str) -> Texts:
        table = self._download(split) if self.path is None else tables.read(tables.find(self.path, split))
        source = f"{self.name}'s {split}"
        texts = [tables.texts(table, name, key="path", source=source) for name in self.task.columns]
        labels = tables.column(table, "label", key="path", source=source)
        if not self.task.class_names:
            return Texts(texts[0], texts[1], values(labels, source=source))
        numbers = class_labels({split: labels}, known=self.task.class_names)[0][split]
        return Texts(texts[0], texts[1] if len(texts) > 1 else None, numbers)

    def _download(self, split: str) -> dict[str, list[Any]]:
        import datasets

        try:
            return datasets.load_dataset(_HUB_REPOSITORY, self.name, split=split).to_dict()
        except Exception as error:  # the hub, its cache and the network raise dozens of types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"dataset.path=null: {_HUB_REPOSITORY} cannot be loaded ({reason}); "
                f"give dataset.path=, a folder with train.parquet and {self.report_split}.parquet"
            ) from error
