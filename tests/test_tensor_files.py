"""Files of tensors: what comes back, and who may read them."""

import os

import torch
from safetensors.torch import load_file

from pruneexp.tensor_files import save_tensors


def test_tensors_of_any_layout_come_back(tmp_path):
    tensors = {"t": torch.arange(6.0).view(2, 3).T, "p": torch.nn.Parameter(torch.ones(2)), "m": torch.tensor([True])}
    save_tensors(tensors, tmp_path / "a.safetensors")
    back = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_the_umask_decides_who_may_read_a_file(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
