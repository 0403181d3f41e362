"""Tables from files in each format, and labels from tables."""

import json
import math

import pyarrow as pa
import pyarrow.parquet
import pytest

from pruneexp.datasets import tables
from pruneexp.datasets.labels import class_labels, unlabelled, values

ROWS = {"text": ['one, "two"', "three\u2028four", "five"], "label": [0, 1, 0]}


def write(path, columns=ROWS):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        lines = [",".join(columns)] + [
            ",".join('"' + str(cell).replace('"', '""') + '"' for cell in row.values()) for row in rows
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        lines = ["\t".join(columns)] + ["\t".join(map(str, row.values())) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_each_format(tmp_path, suffix):
    table = tables.read(tables.find(write(tmp_path / f"train{suffix}").parent, "train"))
    assert list(table) == ["text", "label"]
    assert table["text"] == ROWS["text"]
    assert class_labels({"train": table["label"]})[0]["train"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "name", ["validation.jsonl", "dev.jsonl", "val.csv", "valid.tsv", "validation-00000-of-00001.parquet"]
)
def test_names_of_the_validation_file(tmp_path, name):
    path = write(tmp_path / name)
    assert tables.find(tmp_path, "validation") == [path]
    assert tables.find(tmp_path, "train") == []


def test_shards_are_joined_in_order(tmp_path):
    for k in (1, 0):
        write(tmp_path / f"train-0000{k}-of-00002.parquet", {"text": [f"{k}a", f"{k}b"], "label": [k, k]})
    assert tables.read(tables.find(tmp_path, "train")) == {"text": ["0a", "0b", "1a", "1b"], "label": [0, 0, 1, 1]}


def test_shards_with_other_columns(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet")
    write(tmp_path / "train-00001-of-00002.parquet", {"words": ["a"], "label": [0]})
    with pytest.raises(ValueError, match=r"has the columns words, label, .* text, label"):
        tables.read(tables.find(tmp_path, "train"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.parquet", b"PAR1 nonsense", "cannot be read"),
        ("train.parquet", b"", "cannot be read"),
        ("train.jsonl", b'{"text": "a"\n', "cannot be read"),
        ("train.jsonl", b"[1]\n", "each line must be a JSON object"),
        ("train.jsonl", b"\xff\xfe\n", "cannot be read"),
        ("train.jsonl", b"", "has no rows"),
        ("train.csv", b"", "has no rows"),
        ("train.csv", b"text,label\n", "has no rows"),
    ],
)
def test_damaged_files(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^dataset.path: .*{name}.*{reason}") as error:
        tables.read(tables.find(tmp_path, "train"))
    assert "\n" not in str(error.value)


def test_column():
    assert tables.column(ROWS, "label", key="label_column", source="train") == [0, 1, 0]
    with pytest.raises(
        ValueError, match=r"dataset.text_column=sentence: no such column in train, which has text, label"
    ):
        tables.column(ROWS, "sentence", key="text_column", source="train")
    with pytest.raises(ValueError, match=r"row 2 of train has no value"):
        tables.column({"text": ["a", None]}, "text", key="text_column", source="train")


def test_a_short_csv_row_is_missing_a_value(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,1\nb\n")
    table = tables.read([tmp_path / "train.csv"])
    with pytest.raises(ValueError, match="row 2"):
        tables.column(table, "label", key="label_column", source="train")


@pytest.mark.parametrize(
    ("train", "test", "numbers", "names"),
    [
        ([2, 0, 1], [1, 1], [2, 0, 1], ("0", "1", "2")),
        ([2.0, 0.0], [0.0], [2, 0], ("0", "1", "2")),
        (["10", "2"] * 6, ["0"], [10, 2] * 6, tuple(map(str, range(11)))),
        ([True, False], [True], [1, 0], ("0", "1")),
        (["no", "yes", "no"], ["maybe"], [1, 2, 1], ("maybe", "no", "yes")),
        (list("hgfedcba"), ["a"], [7, 6, 5, 4, 3, 2, 1, 0], tuple("abcdefgh")),
        (["a", 1], ["a"], [1, 0], ("1", "a")),
    ],
)
def test_class_labels(train, test, numbers, names):
    found, found_names = class_labels({"train": train, "test": test})
    assert found["train"].tolist() == numbers
    assert found_names == names


def test_known_names_keep_their_numbers():
    labels = {"train": ["entailment", "contradiction", "entailment"]}
    known = ("entailment", "neutral", "contradiction")
    assert class_labels(labels, known)[0]["train"].tolist() == [0, 2, 0]
    assert class_labels({"train": [2, 0]}, known)[1] == known


@pytest.mark.parametrize(
    ("labels", "known", "reason"),
    [
        ([0, 1, -1], (), "label -1 is out of range"),
        ([0, 1, 99], (), "label 99 is out of range, there are 3 classes"),
        ([0, 2], ("a", "b"), "label 2 is out of range, there are 2 classes"),
        (["a", "c"], ("a", "b"), "label 'c' is out of range"),
        ([0.5, 1.0], (), "label 0.5 is no class; for values set dataset.regression=true"),
        ([1, 1], (), "every label is 1; two or more"),
        (["a", "a"], (), "every label is 'a'; two or more"),
    ],
)
def test_labels_that_are_refused(labels, known, reason):
    with pytest.raises(ValueError, match=f"dataset.path: {reason}"):
        class_labels({"train": labels}, known)


def test_values():
    assert values([1, "2.5", 0.0], source="train").tolist() == [1.0, 2.5, 0.0]
    for wrong in ("high", math.nan, math.inf, [1]):
        with pytest.raises(ValueError, match="in row 2 of train is no number"):
            values([1.0, wrong], source="train")


def test_unlabelled():
    assert unlabelled([-1, -1]) and unlabelled(["-1"]) and unlabelled([None])
    assert not unlabelled([-1, 0])
