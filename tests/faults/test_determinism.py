"""deterministic=true: no other result on a CPU, no other name, and torch as it was for the job after it."""

import pytest
import torch

from pruneexp import experiment
from pruneexp.cli import compose
from pruneexp.naming import run_hash

SMALL = ["dataset.max_examples=60", "batch_size=20", "epochs=2", "dense=none", "logger=none", "device=cpu"]


def run(folder, *options):
    path, _ = experiment.run(compose([*SMALL, *options, f"output_dir={folder}"]))
    return path, (path / "model.safetensors").read_bytes()


def test_on_a_cpu_it_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain, weights = run(tmp_path / "plain")
    seen = []
    train = experiment._train
    monkeypatch.setattr(
        experiment,
        "_train",
        lambda *parts: (seen.append(torch.are_deterministic_algorithms_enabled()), train(*parts))[1],
    )
    strict, same = run(tmp_path / "strict", "deterministic=true")
    run(tmp_path / "after", "seed=2")
    assert seen == [True, False]
    assert plain.name == strict.name
    assert weights == same


def test_it_is_no_part_of_the_name_of_a_run():
    assert run_hash(compose(["deterministic=true"])) == run_hash(compose([]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("options", [["method=pdp"], ["model=bert_tiny", "dataset=text_embedded", "method=cofi"]])
def test_on_a_gpu_the_same_seed_twice_is_bitwise(options, tmp_path):
    both = [run(tmp_path / name, *options, "device=cuda", "deterministic=true")[1] for name in ("one", "two")]
    assert both[0] == both[1]
