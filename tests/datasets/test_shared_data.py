"""The readers on real files, where there are such."""

import os

import numpy as np
import pytest

from pruneexp.datasets.order import eval_draws
from pruneexp.tasks.metrics import majority_rate


def test_cifar10(make, cpu, cifar10_root, shared_data):
    dataset = make("cifar10", root=str(cifar10_root))
    dataset.check()
    splits = dataset.load(device=cpu)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [45_000, 5_000, 10_000]
    assert splits.validation.labels.bincount().tolist() == [500] * 10
    wanted = np.load(shared_data / "cifar-10" / "test_labels.npy")
    assert splits.test.labels.tolist() == wanted.tolist()
    (batch,) = splits.validation.serve(eval_draws(5_000, batch_size=5_000))
    assert batch["inputs"].mean((0, 2, 3)).abs().max() < 0.02  # the numbers in the config are those of the data
    assert (batch["inputs"].std((0, 2, 3)) - 1).abs().max() < 0.02


def test_cifar100_subset(make, cpu, cifar100_root, shared_data):
    splits = make("cifar100", root=str(cifar100_root)).load(device=cpu)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [11_250, 1_250, 10_000]
    assert splits.test.labels.bincount().tolist() == [100] * 100
    assert splits.info.class_names[int(splits.test.labels[0])] == "mountain"  # the first official test image


def test_imagenet_sample_is_in_the_standard_order(make, cpu, shared_data, tmp_path):
    sample = shared_data / "imagenet-sample-1k"
    for source in ("train", "val"):
        os.symlink(sample / "images", tmp_path / source)
    dataset = make("imagenet", root=str(tmp_path), workers=0)
    dataset.check()
    splits = dataset.load(device=cpu)
    wanted = [line.split("\t")[1] for line in (sample / "labels.tsv").read_text().splitlines()[1:]]
    assert list(splits.info.class_names) == wanted
    assert splits.test.labels.tolist() == list(range(1000))
    batch = next(iter(splits.test.serve(eval_draws(1000, batch_size=4))))
    assert batch["inputs"].shape == (4, 3, 224, 224)


@pytest.mark.parametrize(
    ("name", "sizes", "majority"),
    [
        ("glue/cola", [7_696, 855, 1_043], 0.6913),
        ("glue/mrpc", [3_301, 367, 408], 0.6838),
        ("glue/rte", [2_241, 249, 277], 0.5271),
        ("glue/stsb", [5_174, 575, 1_500], None),
        ("sci/citation_intent", [1_688, 114, 139], 0.5108),
        ("sci/sciie", [3_219, 455, 974], 0.5472),
        ("sci/scicite", [7_320, 916, 1_861], 0.5357),
    ],
)
def test_text(make, shared_data, name, sizes, majority):
    dataset = make(name, path=str(shared_data / name))
    dataset.check()
    sources, info = dataset.read()
    parts = dataset.subsets.divide({source: texts.labels for source, texts in sources.items()})
    assert [len(parts[part][1]) for part in ("train", "validation", "test")] == sizes
    test = sources[parts["test"][0]].labels
    if majority is None:
        assert (info.regression, float(test.min()), float(test.max())) == (True, 0.0, 5.0)
    else:
        assert majority_rate(test) == pytest.approx(majority, abs=5e-5)


def test_text_through_a_real_tokenizer(make, cpu, shared_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "bert-vocab")
    dataset = make("glue/mrpc", path=str(shared_data / "glue" / "mrpc"), max_length=32)
    splits = dataset.load(device=cpu, tokenizer=lambda _: tokenizer)
    batch = next(iter(splits.test.serve(eval_draws(408, batch_size=8))))
    first = batch["inputs"]["input_ids"][0]
    assert first.shape == (32,)
    words = tokenizer.convert_ids_to_tokens(first)
    assert words[:5] == ["[CLS]", "he", "said", "the", "foods"]
    assert words.count("[SEP]") == 2
    assert batch["inputs"]["token_type_ids"][0].unique().tolist() == [0, 1]
