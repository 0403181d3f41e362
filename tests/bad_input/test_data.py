"""Data that is damaged, or not what the options say it is, through the whole command."""

import gzip
import json
import pickle
import struct
import time

import numpy as np
import pytest

from .commands import refused_run, runs

BERT = [f"model.{size}" for size in ("hidden_size=16", "num_layers=1", "num_heads=2", "ffn_size=32", "vocab_size=300")]
TEXT = ["model=bert_tiny", *BERT, "dataset=text_classification", "dataset.path=data", "dataset.max_length=16"]
IMAGES = ["optimizer.warmup=0", "dataset.root=data", "dataset.random_crop_padding=0"]
FOLDERS = ["dataset=imagefolder", "dataset.root=data", "dataset.image_size=8", "dataset.resize=8", "dataset.workers=0"]

ROWS = [(f"text number {k} of a few", k % 2) for k in range(24)]
CIFAR = np.arange(12 * 3073, dtype=np.int64).reshape(12, 3073).astype(np.uint8)
CIFAR[:, 0] = np.arange(12) % 10


def csv(rows=ROWS, head="text,label"):
    return head + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def text(folder, name="train.csv", content=None):
    (folder / name).write_text(csv() if content is None else content, encoding="utf-8")


def parquet(columns, names):
    def write(folder):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns, names), folder / "train.parquet")

    return write


def half(name):
    """Damage: the second half of a file is missing."""

    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def shorter(name):
    """Damage: the last byte of a file is missing."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def then(*steps):
    def run(folder):
        for step in steps:
            step(folder)

    return run


def csv_of(*arguments, **named):
    return lambda folder: text(folder, content=csv(*arguments, **named))


def jsonl_of(rows):
    return lambda folder: text(folder, "train.jsonl", jsonl(rows))


GOOD_PARQUET = parquet([[row[0] for row in ROWS], [row[1] for row in ROWS]], ["text", "label"])

TEXTS = {
    "a file without a byte": (lambda folder: text(folder, content=""), "train.csv has no rows; give a file"),
    "a file with a head and no row": (csv_of([]), "train.csv has no rows; give a file"),
    "one class": (csv_of([(row[0], 1) for row in ROWS]), "every label is '1'; two or more classes"),
    "no column of texts": (csv_of(head="words,label"), "dataset.text_column=text: no such column in the train file"),
    "no column of labels": (csv_of(head="text,y"), "dataset.label_column=label: no such column in the train file"),
    "two columns of one name": (csv_of(head="text,text"), "two columns of the name text; rename one"),
    "two columns of one name in parquet": (
        parquet([["a"], ["b"], [0]], ["text", "text", "label"]),
        "two columns of the name text; rename one",
    ),
    "a row without a label": (csv_of([*ROWS, ("no label",)]), "row 25 of the train file has no value"),
    "a comma in a text without quotes": (csv_of([*ROWS, ("one, two", 1)]), "row 25 has more than the 2 fields"),
    "a label out of range": (csv_of([*ROWS, ("text", 99)]), "label '99' is out of range, there are 25 classes"),
    "a negative label": (csv_of([*ROWS, ("text", -1)]), "label '-1' is out of range"),
    "a fraction for a class": (jsonl_of([{"text": "a", "label": 0.5}]), "label 0.5 is no class; for values set"),
    "a list of words for a text": (
        jsonl_of([{"text": ["two", "words"], "label": k % 2} for k in range(9)]),
        "row 1 of the train file is a list, no text; join it",
    ),
    "texts without a word": (jsonl_of([{"text": " ", "label": k % 2} for k in range(9)]), "every text of the train"),
    "two examples": (csv_of(ROWS[:2]), "nothing is left to train on of 2 examples; give a smaller number or more"),
    "a line that is no JSON": (
        lambda folder: text(folder, "train.jsonl", jsonl([{"text": "a", "label": 0}]) + "{'text'\n"),
        "line 2 is no JSON",
    ),
    "a line that is a list": (jsonl_of([["a", 0]]), "each line must be a JSON object"),
    "latin-1 instead of utf-8": (
        lambda folder: (folder / "train.csv").write_bytes("text,label\nGrüße,0\n".encode("latin-1")),
        "train.csv cannot be read: 'utf-8' codec can't decode",
    ),
    "a parquet file that ends early": (then(GOOD_PARQUET, half("train.parquet")), "train.parquet cannot be read"),
    "a web page for a parquet file": (
        lambda folder: text(folder, "train.parquet", "<html>not found</html>"),
        "train.parquet cannot be read",
    ),
    "no train file": (lambda folder: text(folder, "test.csv"), "no train file there; it should hold train.jsonl"),
    "a damaged test file beside a good one": (
        then(text, lambda folder: text(folder, "test.csv", "")),
        "test.csv has no rows",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_cannot_be_trained_on_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    write, message = TEXTS[case]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    line = refused_run(TEXT, tmp_path, monkeypatch, capsys)
    assert message in line
    assert "dataset." in line


REGRESSION = {
    "a target that is NaN": (jsonl_of([{"text": "a", "label": float("nan")}] * 9), "label nan in row 1 of the train"),
    "a target that is a word": (csv_of([("a", "high")] * 9), "label 'high' in row 1 of the train file is no number"),
}


@pytest.mark.parametrize("case", REGRESSION)
def test_values_that_are_no_numbers_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    write, message = REGRESSION[case]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    options = [*TEXT, "dataset.regression=true", "dataset.metrics=[pearson]"]
    assert message in refused_run(options, tmp_path, monkeypatch, capsys)


def test_a_path_to_a_file_is_named(tmp_path, monkeypatch, capsys):
    text(tmp_path, "data")
    assert "dataset.path=data: no folder there" in refused_run(TEXT, tmp_path, monkeypatch, capsys)


def test_a_text_of_100000_words_and_a_text_twice_are_cut_and_kept(tmp_path, monkeypatch):
    """Neither is an error: texts are cut to max_length, and a dataset may hold an example twice."""
    (tmp_path / "data").mkdir()
    text(tmp_path / "data", content=csv([*ROWS, ROWS[0], ("word " * 100_000, 1)]))
    runs(TEXT, tmp_path, monkeypatch)
    (summary,) = tmp_path.glob("outputs/default/*/summary.json")
    assert sum(json.loads(summary.read_text())["examples"].values()) == 26


def cifar10(folder):
    for k in range(5):
        (folder / f"data_batch_{k + 1}.bin").write_bytes(CIFAR[2 * k : 2 * k + 2].tobytes())
    (folder / "test_batch.bin").write_bytes(CIFAR[10:].tobytes())


def cifar10_python(folder, damaged):
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps({"data": CIFAR[:, 1:], "labels": CIFAR[:, 0].tolist()}))
    (folder / "data_batch_2").write_bytes(damaged)


class Code:
    def __reduce__(self):
        return time.sleep, (0,)


def fashion(folder, suffix=""):
    for name in ("train", "t10k"):
        for kind, array in (("images-idx3", CIFAR[:, :784].reshape(12, 28, 28)), ("labels-idx1", CIFAR[:, 0])):
            content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / f"{name}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)


def changed(name, offset, content):
    def damage(folder):
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(old[:offset] + content + old[offset + len(content) :])

    return damage


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def fashion_gz(folder):
    fashion(folder, ".gz")


PIXELS = {
    "nothing there": ("cifar10", lambda folder: None, "no cifar-10-batches-py or cifar-10-batches-bin there"),
    "a file is missing": ("cifar10", then(cifar10, lambda f: (f / "data_batch_3.bin").unlink()), "lacks data_batch_3"),
    "a file ends early": (
        "cifar10",
        then(cifar10, shorter("data_batch_2.bin")),
        "not a multiple of 3073",
    ),
    "an empty file": ("cifar10", then(cifar10, lambda f: (f / "test_batch.bin").write_bytes(b"")), "has 0 bytes"),
    "a label out of range": ("cifar10", then(cifar10, changed("data_batch_1.bin", 0, b"\x0a")), "has label 10, beyond"),
    "code in a pickle": ("cifar10", lambda f: cifar10_python(f, pickle.dumps({"data": Code()})), "names time.sleep"),
    "half a pickle": ("cifar10", lambda f: cifar10_python(f, pickle.dumps({"data": CIFAR})[:99]), "is no CIFAR batch"),
    "a wrong magic number": (
        "fashion_mnist",
        then(fashion, changed(TRAIN_IMAGES, 0, b"\x00\x00\x0d\x03")),
        "begins with 00000d03",
    ),
    "more images than said": (
        "fashion_mnist",
        then(fashion, changed(TRAIN_IMAGES, 7, b"\x0b")),
        "do not fit its shape",
    ),
    "too large a size": (
        "fashion_mnist",
        then(fashion, changed(TRAIN_IMAGES, 4, b"\xff" * 12)),
        "do not fit its shape (4294967295",
    ),
    "labels of other images": (
        "fashion_mnist",
        then(
            fashion,
            lambda f: (f / TRAIN_LABELS).write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes(3)),
        ),
        "has 12 images and",
    ),
    "a label of 200": ("fashion_mnist", then(fashion, changed(TRAIN_LABELS, 8, b"\xc8")), "has label 200, beyond 9"),
    "a gz that ends early": ("fashion_mnist", then(fashion_gz, half(f"{TRAIN_IMAGES}.gz")), "cannot be unpacked"),
    "no gz at all": (
        "fashion_mnist",
        then(fashion_gz, lambda f: (f / f"{TRAIN_IMAGES}.gz").write_bytes(b"<html>")),
        "cannot be unpacked",
    ),
    "a flipped byte in a gz": (
        "fashion_mnist",
        then(fashion_gz, changed(f"{TRAIN_IMAGES}.gz", -4, b"\x00\x01\x02\x03")),
        "cannot be unpacked",
    ),
}


@pytest.mark.parametrize("case", PIXELS)
def test_images_that_cannot_be_read_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    dataset, write, message = PIXELS[case]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    line = refused_run([f"dataset={dataset}", *IMAGES], tmp_path, monkeypatch, capsys)
    assert message in line
    assert "dataset.root" in line


def image(path, array=None, **options):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8) if array is None else array
    Image.fromarray(pixels).save(path, **options)


def folders(root, classes=("cat", "dog"), parts=("train", "val")):
    for part in parts:
        for name in classes:
            for k in range(6):
                image(root / part / name / f"{k}.png")


LISTINGS = {
    "one class": (lambda root: folders(root, ["cat"]), "only the class cat"),
    "a class without images": (then(folders, lambda root: (root / "train" / "eel").mkdir()), "eel"),
    "a class in one part only": (then(folders, lambda root: image(root / "val" / "eel" / "0.png")), "class eel is not"),
    "no images at all": (lambda root: (root / "train").mkdir(), "dataset.root"),
    "no folder train": (lambda root: folders(root, parts=["val"]), "no folder train/ there"),
}


@pytest.mark.parametrize("case", LISTINGS)
def test_folders_of_images_that_make_no_dataset_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    write, message = LISTINGS[case]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    assert message in refused_run(FOLDERS, tmp_path, monkeypatch, capsys)


def huge(path):
    """A picture whose head says 60,000 x 60,000 pixels."""
    image(path)
    content = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    import zlib

    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])


BROKEN = {
    "no bytes": (lambda path: path.write_bytes(b""), "is no readable image; delete or replace it"),
    "half a file": (lambda path: path.write_bytes(path.read_bytes()[:60]), "is no readable image; delete"),
    "a web page": (lambda path: path.write_text("<html>"), "is no readable image; delete or replace it"),
    "16 bits a pixel": (
        lambda path: image(path, np.full((8, 8), 40_000, dtype=np.uint16)),
        "pixels, not 8 bits each; convert it",
    ),
    "pixels that are NaN": (
        lambda path: image(path, np.full((8, 8), np.nan, dtype=np.float32), format="TIFF"),
        "has F pixels, not 8 bits each; convert it",
    ),
    "more pixels than fit": (huge, "is no readable image; delete or replace it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_image_that_is_broken_is_named_when_it_is_read_and_the_run_goes_on_once_it_is_mended(
    case, tmp_path, monkeypatch, capsys
):
    """Images are read as they are needed: the run has begun by then, so that this is a failure and not a refusal."""
    from pruneexp import cli

    damage, message = BROKEN[case]
    root = tmp_path / "data"
    folders(root)
    damage(root / "val" / "dog" / "3.png")
    with pytest.raises(SystemExit) as stop:
        runs(FOLDERS, tmp_path, monkeypatch)
    errors = capsys.readouterr().err.strip()
    assert stop.value.code in (1, 2)
    assert message in errors
    assert "3.png" in errors
    assert "\n" not in errors
    image(root / "val" / "dog" / "3.png")
    cli.main()
    assert list(tmp_path.glob("outputs/default/*/summary.json"))
