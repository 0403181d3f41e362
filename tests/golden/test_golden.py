"""Twenty steps of each method on fixed data: a change of any number here is a change of results and must be meant."""

import pytest

from pruneexp import experiment
from pruneexp.cli import CONFIGS, compose
from pruneexp.runs import Run

METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))

# method: mean training loss of the 20 steps, sparsity at their end
EXPECTED = {
    "channel": (2.08176, 240465 / 268784),
    "cofi": (1.95289, 241969 / 268784),
    "dense": (0.66875, 0.0),
    "gmp": (1.24337, 241243 / 268048),
    "magnitude": (1.12540, 241243 / 268048),
    "nm": (0.83576, 0.5),
    "pdp": (1.00467, 241243 / 268048),
    "random": (1.61392, 241243 / 268048),
    "sr_ste": (0.82285, 0.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_twenty_steps(method, tmp_path):
    overrides = ["dataset.max_examples=200", "batch_size=50", "epochs=5", "dense=none", "logger=none", "device=cpu"]
    config = compose([f"method={method}", f"output_dir={tmp_path}", *overrides, "training.evaluate_every=5"])
    folder, summary = experiment.run(config)
    loss, sparsity = EXPECTED[method]
    assert summary["steps"] == 20
    assert Run(folder, {}, None).rows()[-1]["train/loss"] == pytest.approx(loss, rel=1e-3)
    assert summary["sparsity"]["prunable"] == sparsity
