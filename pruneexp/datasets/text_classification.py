"""Labelled texts in files of your own: one parquet, JSON-lines, CSV or TSV file per split, columns named in the config.

Files are found by name: train, validation (or dev, val, valid), test. Without a test file, or with one whose labels are
all -1, the validation file is the part to report and validation is carved out of train; with neither, both are.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from pruneexp.datasets import tables
from pruneexp.datasets.base import DataInfo
from pruneexp.datasets.labels import class_labels, unlabelled, values
from pruneexp.datasets.text import TextDataset, Texts
from pruneexp.tasks.metrics import check_metrics

_LAYOUT = "train.jsonl, dev.jsonl and test.jsonl (or .parquet, .csv, .tsv)"


class TextClassification(TextDataset):
    """Such files. Despite the name, `regression=true` reads values instead of classes."""

    def __init__(
        self,
        *,
        path: str | None,
        source: str | None,
        text_column: str,
        text_pair_column: str | None,
        label_column: str,
        regression: bool,
        metrics: list[str],
        **common: Any,
    ) -> None:
        """common: the options of `TextDataset`."""
        super().__init__(**common)
        check_metrics(tuple(metrics), regression=regression)
        self.path, self.source = None if path is None else Path(path).expanduser(), source
        self.text_columns = {"text_column": text_column, "text_pair_column": text_pair_column}
        self.label_column, self.regression, self.metrics = label_column, regression, tuple(metrics)

    def check(self) -> None:
        """Raises ValueError if there is no training file in `path`."""
        origin = f"; get them from {self.source}" if self.source else ""
        if self.path is None:
            raise ValueError(f"dataset.path=null: give the folder that holds {_LAYOUT}{origin}")
        if not self.path.is_dir():
            raise ValueError(f"dataset.path={self.path}: no folder there; give the one that holds {_LAYOUT}{origin}")
        if not tables.find(self.path, "train"):
            raise ValueError(f"dataset.path={self.path}: no train file there; it should hold {_LAYOUT}{origin}")

    def read(self) -> tuple[dict[str, Texts], DataInfo]:
        """The sources that have a file; see the base class."""
        found = {split: tables.find(self.path, split) for split in ("train", "validation", "test")}
        read = {split: tables.read(paths) for split, paths in found.items() if paths}
        hidden = [split for split, table in read.items() if split != "train" and self._unlabelled(table)]
        read = {split: table for split, table in read.items() if split not in hidden}
        labels = {
            split: tables.column(table, self.label_column, key="label_column", source=f"the {split} file")
            for split, table in read.items()
        }
        if self.regression:
            numbers, names = (
                {split: values(column, source=f"the {split} file") for split, column in labels.items()},
                (),
            )
        else:
            numbers, names = class_labels(labels)
        info = DataInfo(
            kind=self.kind,
            num_outputs=max(1, len(names)),
            metrics=self.metrics,
            regression=self.regression,
            class_names=names,
        )
        return {split: self._texts(table, numbers[split], split) for split, table in read.items()}, info

    def _unlabelled(self, table: tables.Table) -> bool:
        return self.label_column in table and unlabelled(table[self.label_column])

    def _texts(self, table: tables.Table, labels: Tensor, split: str) -> Texts:
        first, second = (
            None if name is None else tables.texts(table, name, key=key, source=f"the {split} file")
            for key, name in self.text_columns.items()
        )
        return Texts(first, second, labels)
