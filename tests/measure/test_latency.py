"""Timings are made as they say: in turn, after a warm-up, as medians with quartiles."""

import time

import pytest
import torch
from torch import nn

from pruneexp.measure.latency import compiled, eager, latencies, repeated


def test_variants_run_in_turn_and_the_warm_up_is_not_timed():
    calls = []
    variants = {name: lambda batch, name=name: calls.append((name, len(batch))) for name in ("a", "b")}
    rows = latencies(variants, torch.zeros(1, 3), batch_sizes=[4, 2], runs=3, warm_up=2)
    assert calls == [("a", 4), ("b", 4)] * 5 + [("a", 2), ("b", 2)] * 5
    assert [(row.variant, row.batch_size, row.runs) for row in rows] == [
        ("a", 4, 3),
        ("b", 4, 3),
        ("a", 2, 3),
        ("b", 2, 3),
    ]
    assert {row.threads for row in rows} == {torch.get_num_threads()}
    assert rows[0].device


def test_median_and_quartiles_are_those_of_the_calls(monkeypatch):
    """A clock that lets the calls last 5, 1, 4, 2 and 3 seconds; the two of the warm-up 100 each."""
    lengths = iter([100, 100, 5, 1, 4, 2, 3])
    now = 0.0

    def call(batch):
        nonlocal now
        now += next(lengths)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    (row,) = latencies({"a": call}, torch.zeros(1, 3), batch_sizes=[1], runs=5, warm_up=2)
    assert (row.first_quartile, row.median, row.third_quartile) == (2, 3, 4)


def test_batches_are_copies_of_the_first_row():
    example = {"ids": torch.tensor([[1, 2], [3, 4]])}
    assert repeated(example, 3)["ids"].tolist() == [[1, 2]] * 3


def test_eager_and_compiled_variants_are_in_eval_mode():
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train()
    x = torch.ones(2, 3)
    torch.testing.assert_close(eager(network)(x), network[0](x))
    assert not network.training
    torch.testing.assert_close(compiled_with_eager(network)(x), network[0](x))


def compiled_with_eager(network, compile=torch.compile):
    with pytest.MonkeyPatch.context() as patch:  # no C++ compiler is needed to see that the pieces fit
        patch.setattr(torch, "compile", lambda module, **options: compile(module, backend="eager", **options))
        return compiled(network)


def test_onnx_takes_the_inputs_by_name(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from pruneexp.measure.latency import onnx

    network = nn.Linear(3, 2).eval()
    x = torch.randn(2, 3)
    torch.onnx.export(network, (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    with torch.no_grad():
        torch.testing.assert_close(onnx(tmp_path / "net.onnx")(x), network(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"runs": 1}, "runs=1: want at least 2"), ({"batch_sizes": [0]}, "want numbers of at least 1")],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        latencies({}, torch.zeros(1, 3), **options)
