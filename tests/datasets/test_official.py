"""The official CIFAR and Fashion-MNIST files, tiny ones, in each form that people have them in."""

import gzip
import pickle
import re
import struct
import time

import numpy as np
import pytest
import torch

IMAGES = np.arange(40 * 3072).reshape(40, 3072).astype(np.uint8)
LABELS = np.arange(40) % 10
TINY = {"validation_fraction": 0.25, "random_crop_padding": 0, "flip": False}


def write_binary(folder, name, rows, *leading):
    folder.mkdir(parents=True, exist_ok=True)
    records = np.concatenate([*(column[rows, None] for column in leading), LABELS[rows, None], IMAGES[rows]], 1)
    (folder / name).write_bytes(records.astype(np.uint8).tobytes())


def write_python(folder, name, rows, key="labels", protocol=2):
    folder.mkdir(parents=True, exist_ok=True)
    content = pickle.dumps({"data": IMAGES[rows], key: LABELS[rows].tolist()}, protocol=protocol)
    if protocol == 2:  # as Python 2 and the numpy of its day named it
        content = content.replace(b"numpy._core", b"numpy.core")
    (folder / name).write_bytes(content)


def cifar10_binary(folder):
    for k in range(5):
        write_binary(folder, f"data_batch_{k + 1}.bin", slice(6 * k, 6 * k + 6))
    write_binary(folder, "test_batch.bin", slice(30, 40))


def cifar10_python(folder):
    for k in range(5):
        write_python(folder, f"data_batch_{k + 1}", slice(6 * k, 6 * k + 6))
    write_python(folder, "test_batch", slice(30, 40))


def write_idx(path, array):
    content = struct.pack(">4B", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def fashion(folder, suffix):
    folder.mkdir(parents=True, exist_ok=True)
    images = IMAGES[:, :784].reshape(40, 28, 28)
    for name, rows in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images[rows])
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", LABELS[rows])


def everything(dataset, cpu):
    """The pixels (0 to 255) and labels of train and validation together, by label and content, and those of test."""
    dataset.check()
    splits = dataset.load(device=cpu)
    assert (splits.info.kind, splits.info.metrics, splits.info.regression) == ("image", ("accuracy",), False)
    rows = {name: (split._images, split.labels) for name, split in vars(splits).items() if name != "info"}
    assert len(splits.validation) == round(0.25 * (len(splits.train) + len(splits.validation)))
    images = torch.cat([rows["train"][0], rows["validation"][0]])
    labels = torch.cat([rows["train"][1], rows["validation"][1]])
    return splits.info, sorted(zip(images.flatten(1).tolist(), labels.tolist(), strict=True)), rows["test"]


def expected(rows, width=3072):
    return sorted(zip(IMAGES[rows, :width].tolist(), LABELS[rows].tolist(), strict=True))


@pytest.mark.parametrize("write", [cifar10_binary, cifar10_python])
@pytest.mark.parametrize("below", ["", "own"])
def test_cifar10(make, cpu, tmp_path, write, below):
    own = "cifar-10-batches-bin" if write is cifar10_binary else "cifar-10-batches-py"
    write(tmp_path / (own if below else ""))
    info, train, (images, labels) = everything(make("cifar10", root=str(tmp_path), **TINY), cpu)
    assert (info.num_outputs, info.channels, info.image_size, info.class_names[9]) == (10, 3, 32, "truck")
    assert train == expected(slice(0, 30))
    assert images.flatten(1).tolist() == IMAGES[30:].tolist()
    assert labels.tolist() == LABELS[30:].tolist()
    assert images[0, 1, 2, 3] == IMAGES[30, 1024 + 2 * 32 + 3]  # planes, then rows, then columns


@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar100_python(make, cpu, tmp_path, protocol):
    for name, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        write_python(tmp_path / "cifar-100-python", name, rows, key="fine_labels", protocol=protocol)
    info, train, _ = everything(make("cifar100", root=str(tmp_path), **TINY), cpu)
    assert info.num_outputs == len(info.class_names) == 100
    assert train == expected(slice(0, 30))


def test_cifar100_binary_takes_the_fine_label(make, cpu, tmp_path):
    coarse = np.full(40, 19)
    for name, rows in (("train.bin", slice(0, 30)), ("test.bin", slice(30, 40))):
        write_binary(tmp_path, name, rows, coarse)
    assert everything(make("cifar100", root=str(tmp_path), **TINY), cpu)[1] == expected(slice(0, 30))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_fashion_mnist(make, cpu, tmp_path, suffix, below):
    fashion(tmp_path / below, suffix)
    info, train, (images, _) = everything(make("fashion_mnist", root=str(tmp_path), **TINY), cpu)
    assert (info.num_outputs, info.channels, info.image_size) == (10, 1, 28)
    assert images.shape == (10, 1, 28, 28)
    assert train == expected(slice(0, 30), 784)


def test_images_are_resized_once_at_loading(make, cpu, tmp_path):
    cifar10_binary(tmp_path)
    splits = make("cifar10", root=str(tmp_path), image_size=8, **TINY).load(device=cpu)
    assert splits.info.image_size == 8
    from torchvision.transforms.v2.functional import resize

    wanted = resize(torch.from_numpy(IMAGES[30:].reshape(-1, 3, 32, 32)), [8, 8], antialias=True)
    assert torch.equal(splits.test._images, wanted)


@pytest.mark.parametrize("seed", [0, 1])
def test_fraction_shortens_the_training_part_only(make, cpu, tmp_path, seed):
    cifar10_binary(tmp_path)
    options = {"root": str(tmp_path), "split_seed": seed, **TINY}
    whole, half = (make("cifar10", fraction=fraction, **options).load(device=cpu) for fraction in (None, 0.5))
    assert len(half.train) == round(len(whole.train) / 2)
    assert len(half.test) == 10
    assert torch.equal(half.validation._images, whole.validation._images)


def test_a_missing_folder_is_named(make, tmp_path):
    missing = tmp_path / "absent"
    with pytest.raises(
        ValueError, match=r"dataset\.root=.*absent: no folder there; give .*cifar-10-batches-py or cifar-10-b"
    ):
        make("cifar10", root=str(missing)).check()


def test_an_empty_folder_is_named(make, tmp_path):
    with pytest.raises(ValueError, match=r"no FashionMNIST/raw there; give the folder .* or set dataset.download=true"):
        make("fashion_mnist", root=str(tmp_path)).check()


def test_a_missing_file_is_named(make, tmp_path):
    cifar10_python(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(ValueError, match="lacks data_batch_3;"):
        make("cifar10", root=str(tmp_path)).check()


def test_without_root_the_users_cache_is_meant(make, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make("cifar10").root == tmp_path / "pruneexp"


def damaged(make, cpu, folder, name):
    with pytest.raises(ValueError, match=r"dataset\.root") as error:
        make(name, root=str(folder), **TINY).load(device=cpu)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_truncated_binary_file(make, cpu, tmp_path):
    cifar10_binary(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} has {6 * 3073 - 1} bytes, not a multiple of 3073" in damaged(make, cpu, tmp_path, "cifar10")


def test_an_empty_binary_file(make, cpu, tmp_path):
    cifar10_binary(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"")
    assert "has 0 bytes" in damaged(make, cpu, tmp_path, "cifar10")


def test_a_label_out_of_range(make, cpu, tmp_path):
    cifar10_binary(tmp_path)
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    assert "data_batch_1.bin has label 10, beyond 9" in damaged(make, cpu, tmp_path, "cifar10")


class Evil:
    def __reduce__(self):
        return time.sleep, (0,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"data": Evil(), "labels": []}), "names time.sleep"),
        (b"not a pickle", "no CIFAR batch"),
        (pickle.dumps([1, 2]), "no CIFAR batch"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}), "KeyError: 'labels'"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}), "no CIFAR batch"),
        (pickle.dumps({"data": np.zeros((0, 3072), np.uint8), "labels": []}), "it holds no example"),
        (b"", "no CIFAR batch"),
    ],
)
def test_a_pickle_that_is_no_batch_runs_nothing(make, cpu, tmp_path, content, reason):
    cifar10_python(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(content)
    assert reason in damaged(make, cpu, tmp_path, "cifar10")


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("train-images-idx3-ubyte.gz", lambda content: content[:-20], "cannot be unpacked"),
        ("train-images-idx3-ubyte.gz", lambda content: b"plain" + content, "cannot be unpacked"),
        (
            "train-images-idx3-ubyte.gz",
            lambda content: gzip.compress(b"\0\0\x08\x01" + bytes(30)),
            "begins with 00000801",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            lambda content: gzip.compress(gzip.decompress(content)[:-1]),
            "do not fit its shape",
        ),
        ("train-labels-idx1-ubyte.gz", lambda content: gzip.compress(b"\0\0\x08\x01"), "do not fit its shape"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda _: gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x05"),
            "10 images and .* 1 labels",
        ),
    ],
)
def test_a_damaged_idx_file(make, cpu, tmp_path, name, spoil, reason):
    fashion(tmp_path, ".gz")
    (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
    assert re.search(reason, damaged(make, cpu, tmp_path, "fashion_mnist"))


def test_download_fetches_what_is_missing(make, cpu, tmp_path, monkeypatch):
    import torchvision

    def fetch(root, download):
        assert (root, download) == (str(tmp_path / "new"), True)
        cifar10_python(tmp_path / "new" / "cifar-10-batches-py")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    dataset = make("cifar10", root=str(tmp_path / "new"), download=True, **TINY)
    assert everything(dataset, cpu)[1] == expected(slice(0, 30))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)  # a second load finds the files
    assert everything(dataset, cpu)[1] == expected(slice(0, 30))


def test_a_download_that_fails_is_one_line(make, cpu, tmp_path, monkeypatch):
    import torchvision

    def fetch(root, download):
        raise OSError("Name or service not known\nmore")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    dataset = make("cifar10", root=str(tmp_path / "new"), download=True)
    dataset.check()
    with pytest.raises(ValueError, match=r"^dataset.download=true: Name or service not known; fetch .* dataset.root$"):
        dataset.load(device=cpu)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random_crop_padding": -1}, "dataset.random_crop_padding=-1"),
        ({"image_size": 0}, "dataset.image_size=0"),
        ({"mean": [0.5]}, "dataset.mean"),
    ],
)
def test_impossible_options(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make("cifar10", **changes)
