"""The compiled loops: on several threads, without OpenMP, and what happens where they cannot be compiled."""

import logging
import sys

import pytest
import torch

from pruneexp import cpu_kernels as module
from pruneexp.selection import WarmBoundary, boundary

WEIGHTS = 100_001  # more than one thread takes alone, and no multiple of a vector or of a piece


@pytest.fixture(scope="module")
def kernels():
    return compiled()


def compiled():
    """A fresh build; `cpu_kernels` itself remembers the first."""
    kernels = module.cpu_kernels.__wrapped__()
    if kernels is None:
        pytest.skip("no C compiler")
    return kernels


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def weights(seed=0):
    return 0.02 * torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(seed))


def results(kernels):
    """Of all loops, on weights of which some are in the band."""
    w, gradient = weights(), weights(1)
    masked, slope = torch.empty_like(w), torch.empty_like(w)
    kernels.masked(w, masked, 50_000.0, -55.0)
    kernels.masked_backward(w, gradient, slope, 50_000.0, -55.0)
    below, band = kernels.count_and_band(w, 0.03, 0.031)
    return masked, slope, below, torch.from_numpy(band).sort().values


def test_counts_and_collects(kernels):
    magnitudes = weights().abs()
    low, high = torch.tensor([0.03, 0.031])
    _, _, below, band = results(kernels)
    assert below == (magnitudes < low).sum()
    assert torch.equal(band, magnitudes[(magnitudes >= low) & (magnitudes <= high)].sort().values)


def test_the_bounds_belong_to_the_band_and_nan_does_not(kernels):
    below, band = kernels.count_and_band(torch.tensor([-1.0, 0.5, 2.0, float("nan"), -3.0] + 20 * [0.0]), 1.0, 2.0)
    assert below == 21
    assert sorted(band.tolist()) == [1.0, 2.0]


def test_a_band_of_more_than_an_eighth_comes_back_empty(kernels):
    w = weights()
    assert kernels.count_and_band(w, 0.0, 1.0)[1].size == 0
    assert kernels.count_and_band(w[:0], 0.0, 1.0)[0] == 0


def test_two_threads_compute_what_one_does(kernels, two_threads):
    both = results(kernels)
    torch.set_num_threads(1)
    for two, one in zip(both, results(kernels), strict=True):
        assert torch.equal(torch.as_tensor(two), torch.as_tensor(one))


def test_a_threshold_on_two_threads_is_exact(two_threads):
    warm, values = WarmBoundary(), weights().view(1, -1)
    for _ in range(5):
        values = values * 1.0001
        assert torch.equal(torch.cat(warm(values, 90_000)), torch.cat(boundary(values.abs(), 90_000)))


def test_without_openmp_one_thread_computes_the_same(kernels, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", (["-march=native"],))
    for serial, threaded in zip(results(compiled()), results(kernels), strict=True):
        assert torch.equal(torch.as_tensor(serial), torch.as_tensor(threaded))


def test_a_compiler_that_lacks_an_option_is_asked_again_and_knowing_no_processor_changes_rounding_only(
    kernels, monkeypatch
):
    monkeypatch.setattr(module, "ATTEMPTS", (["-fno-such-option"], []))
    for plain, native in zip(results(compiled()), results(kernels), strict=True):
        assert torch.allclose(torch.as_tensor(plain), torch.as_tensor(native), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CC": "no-such-compiler"}, "no-such-compiler does not compile"),
        ({"CC": f"{sys.executable} -c 'raise SystemExit(\"out of order\")'"}, "out of order"),
        ({"CC": "true"}, "cannot open shared object file"),
        ({"CC": "", "PATH": ""}, "no C compiler"),
    ],
)
def test_without_a_working_compiler_there_are_none_and_the_log_says_why(environment, message, monkeypatch, caplog):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO, logger="pruneexp"):
        assert module.cpu_kernels.__wrapped__() is None
    assert message in caplog.text
    assert "computed by torch" in caplog.text
    assert len(caplog.records) == 1


def test_they_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("PRUNEEXP_CPU_KERNELS", "off")
    assert module.cpu_kernels.__wrapped__() is None
