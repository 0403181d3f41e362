"""GLUE, text files of your own, and the embedded docstrings."""

import ast
import json
import math
import threading

import pytest
import torch

from pruneexp.datasets.glue import TASKS
from pruneexp.datasets.order import eval_draws


class Words:
    """A tokenizer that knows the words of the texts it was made from; it keeps them for the test to look at."""

    pad_token_id, pad_token_type_id, model_max_length = 0, 0, 512

    def __init__(self, texts):
        self.texts = texts
        self.ids = {
            word: number + 1 for number, word in enumerate(sorted({word for text in texts for word in text.split()}))
        }

    def __call__(self, texts, pairs, *, truncation, max_length):
        both = texts if pairs is None else [f"{a} {b}" for a, b in zip(texts, pairs, strict=True)]
        return {"input_ids": [[self.ids.get(word, 0) for word in text.split()][:max_length] for text in both]}


def write(folder, split, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count, *columns, label=lambda k: k % 2):
    return [{**{name: f"{name} {k}" for name in columns}, "label": label(k), "idx": k} for k in range(count)]


def load(dataset):
    dataset.check()
    return dataset.load(device=torch.device("cpu"), tokenizer=Words)


def sizes(splits):
    return [len(splits.train), len(splits.validation), len(splits.test)]


@pytest.mark.parametrize("task", TASKS)
def test_every_glue_task(make, tmp_path, task):
    columns, names = TASKS[task].columns, TASKS[task].class_names
    classes = len(names)
    public = "validation_matched" if task == "mnli" else "validation"
    label = (lambda k: k % classes) if classes else (lambda k: k / 4)
    write(tmp_path, "train", rows(20, *columns, label=label))
    write(tmp_path, public, rows(6, *columns, label=label))
    write(tmp_path, "test", rows(6, *columns, label=lambda _: -1))
    splits = load(make(f"glue/{task}", path=str(tmp_path)))
    assert sizes(splits) == [18, 2, 6]
    wanted = [label(k) for k in range(6)]
    assert splits.test.labels.tolist() == wanted
    assert splits.test.labels.dtype == (torch.int64 if classes else torch.float32)
    info = splits.info
    assert (info.kind, info.num_outputs, info.regression, info.class_names) == (
        "text",
        classes or 1,
        not classes,
        names,
    )
    (batch,) = splits.test.serve(eval_draws(6, batch_size=6))
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [2 * len(columns)] * 6


def test_the_metrics_of_glue():
    assert {task: known.metrics for task, known in TASKS.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }


def test_mnli_can_report_the_mismatched_part(make, tmp_path):
    write(tmp_path, "train", rows(20, "premise", "hypothesis"))
    write(tmp_path, "validation_mismatched", rows(4, "premise", "hypothesis"))
    dataset = make("glue/mnli", path=str(tmp_path), report_split="validation_mismatched")
    assert sizes(load(dataset)) == [18, 2, 4]
    with pytest.raises(ValueError, match=r"dataset.report_split=validation_mismatched: rte has validation"):
        make("glue/rte", report_split="validation_mismatched")


def test_the_files_of_the_hub_are_read(make, tmp_path, monkeypatch):
    import datasets

    def load_dataset(repository, task, split):
        assert (repository, task) == ("nyu-mll/glue", "rte")
        return datasets.Dataset.from_list(rows(20 if split == "train" else 4, "sentence1", "sentence2"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert sizes(load(make("glue/rte"))) == [18, 2, 4]


def test_a_hub_that_does_not_answer_is_one_line(make, monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nMore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ValueError, match=r"^dataset.path=null: .*\(Couldn't reach the Hub\); give dataset.path=, a folder .*$"
    ):
        load(make("glue/rte"))


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (
            rows(8, "sentence1"),
            "dataset.path=sentence2: no such column in rte's train, which has sentence1, label, idx",
        ),
        (rows(8, "sentence1", "sentence2", label=lambda k: k % 3), "label 2 is out of range, there are 2 classes"),
        (rows(8, "sentence1", "sentence2", label=lambda _: 1), "every label is 1"),
    ],
)
def test_glue_files_that_do_not_fit(make, tmp_path, train, reason):
    write(tmp_path, "train", train)
    write(tmp_path, "validation", rows(4, "sentence1", "sentence2"))
    with pytest.raises(ValueError, match=reason):
        load(make("glue/rte", path=str(tmp_path)))


def test_stsb_wants_numbers(make, tmp_path):
    for split in ("train", "validation"):
        write(tmp_path, split, rows(8, "sentence1", "sentence2", label=lambda k: "high" if k == 2 else 1.5))
    with pytest.raises(ValueError, match="label 'high' in row 3 of stsb's train is no number"):
        load(make("glue/stsb", path=str(tmp_path)))


def test_missing_glue_files(make, tmp_path):
    with pytest.raises(ValueError, match=r"dataset.path=.*absent: no folder there"):
        make("glue/rte", path=str(tmp_path / "absent")).check()
    write(tmp_path, "validation", rows(4, "sentence1", "sentence2"))
    with pytest.raises(ValueError, match=r"dataset.path=.*: no file train.parquet \(or .jsonl, .csv, .tsv\) there"):
        make("glue/rte", path=str(tmp_path)).check()


def test_an_unknown_glue_task(make):
    with pytest.raises(ValueError, match=r"dataset.task=squad: give one of cola, sst2"):
        make("glue/rte", task="squad")


def test_text_classification_with_all_files_and_named_classes(make, tmp_path):
    for split, count in (("train", 8), ("dev", 4), ("test", 6)):
        write(tmp_path, split, rows(count, "text", label=lambda k: ["uses", "extends"][k % 2]))
    splits = load(make("sci/scicite", path=str(tmp_path)))
    assert sizes(splits) == [8, 4, 6]
    assert splits.info.class_names == ("extends", "uses")
    assert splits.info.metrics == ("macro_f1", "accuracy")
    assert splits.test.labels.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"train": 20}, [16, 2, 2]),
        ({"train": 20, "test": 5}, [18, 2, 5]),
        ({"train": 20, "validation": 5}, [18, 2, 5]),
        ({"train": 20, "validation": 5, "test": 6}, [20, 5, 6]),
    ],
)
def test_missing_files_are_made_up_for(make, tmp_path, files, wanted):
    for split, count in files.items():
        write(tmp_path, split, rows(count, "text"))
    assert sizes(load(make("text_classification", path=str(tmp_path)))) == wanted


@pytest.mark.parametrize("hidden", [-1, None])
def test_a_test_file_without_labels_is_not_used(make, tmp_path, hidden):
    write(tmp_path, "train", rows(20, "text"))
    write(tmp_path, "validation", rows(5, "text"))
    write(tmp_path, "test", rows(7, "text", label=lambda _: hidden))
    assert sizes(load(make("text_classification", path=str(tmp_path)))) == [18, 2, 5]


def test_pairs_values_and_named_columns(make, tmp_path):
    table = [{"a": f"a {k}", "b": f"b b {k}", "score": k / 2} for k in range(20)]
    write(tmp_path, "train", table)
    splits = load(
        make(
            "text_classification",
            path=str(tmp_path),
            text_column="a",
            text_pair_column="b",
            label_column="score",
            regression=True,
            metrics=["spearman"],
        )
    )
    assert (splits.info.regression, splits.info.num_outputs, splits.info.class_names) == (True, 1, ())
    assert splits.train.labels.dtype == torch.float32
    assert splits.train._tokens.lengths.tolist() == [5] * 16


def test_errors_of_text_classification(make, tmp_path):
    with pytest.raises(
        ValueError, match=r"dataset.path=null: give the folder that holds train.jsonl.*get them from .*scibert"
    ):
        make("sci/sciie").check()
    with pytest.raises(ValueError, match="no folder there"):
        make("sci/sciie", path=str(tmp_path / "absent")).check()
    write(tmp_path, "test", rows(4, "text"))
    with pytest.raises(ValueError, match="no train file there"):
        make("text_classification", path=str(tmp_path)).check()
    write(tmp_path, "train", rows(4, "words"))
    with pytest.raises(
        ValueError, match=r"dataset.text_column=text: no such column in the train file, which has words"
    ):
        load(make("text_classification", path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"dataset.metrics=\['bleu'\]: for classes give one or more of accuracy, f1"):
        make("text_classification", metrics=["bleu"])


@pytest.mark.parametrize(("key", "value"), [("max_length", 0), ("pad_to", "batch"), ("fraction", 2.0)])
def test_impossible_options(make, key, value):
    with pytest.raises(ValueError, match=f"dataset.{key}={value}"):
        make("glue/rte", **{key: value})


def test_a_fraction_shortens_train_but_not_what_the_tokenizer_sees(make, tmp_path):
    write(tmp_path, "train", rows(40, "text"))
    write(tmp_path, "validation", rows(4, "text"))
    seen = []
    dataset = make("text_classification", path=str(tmp_path), fraction=0.25)
    splits = dataset.load(device=torch.device("cpu"), tokenizer=lambda texts: seen.append(texts) or Words(texts))
    assert sizes(splits) == [9, 4, 4]
    assert len(seen[0]) == 36
    assert splits.train.labels.bincount().tolist() in ([4, 5], [5, 4])


@pytest.mark.parametrize(("label", "classes", "fewest"), [("chapter", 6, 2500), ("module", 15, 1500)])
def test_text_embedded(make, label, classes, fewest):
    dataset = make("text_embedded", label=label)
    dataset.check()
    sources, info = dataset.read()
    texts = sources["train"]
    assert info.num_outputs == len(info.class_names) >= classes
    assert len(texts.first) == len(set(texts.first)) == len(texts.labels) >= fewest
    assert texts.first == sorted(texts.first)
    assert texts.labels.bincount().min() >= 50
    assert min(len(text.split()) for text in texts.first) >= 5


def test_text_embedded_is_what_python_documents(make):
    sources, info = make("text_embedded").read()
    texts = dict(zip(sources["train"].first, sources["train"].labels.tolist(), strict=True))
    for documented, chapter in (
        (math.cos, "numbers"),
        (threading.Thread.start, "concurrency"),
        (ast.NodeVisitor, "language"),
    ):
        assert info.class_names[texts[" ".join(documented.__doc__.split())]] == chapter


def test_text_embedded_ignores_what_other_libraries_add(make, monkeypatch):
    import logging

    def shout(self):
        """Never to be seen among the texts of the standard library."""

    before = make("text_embedded").read()[0]["train"].first
    monkeypatch.setattr(logging.Logger, "shout", shout, raising=False)
    assert make("text_embedded").read()[0]["train"].first == before


def test_text_embedded_can_be_learnt(make):
    """A bag of words beats the most frequent class by far, so a network that does not has a defect."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeClassifier

    dataset = make("text_embedded")
    texts = dataset.read()[0]["train"]
    parts = dataset.subsets.divide({"train": texts.labels})
    train, test = texts[parts["train"][1]], texts[parts["test"][1]]
    words = TfidfVectorizer()
    score = (
        RidgeClassifier()
        .fit(words.fit_transform(train.first), train.labels)
        .score(words.transform(test.first), test.labels)
    )
    majority = test.labels.bincount().max().item() / len(test.labels)
    assert score > 0.75 > 2 * majority
