import pytest
import torch

from pruneexp.lagrangian import Lagrangian


def test_term_and_gradients_by_hand():
    lagrangian = Lagrangian(torch.device("cpu"))
    with torch.no_grad():
        lagrangian.multipliers.copy_(torch.tensor([-2.0, 3.0]))
    sparsity = torch.tensor(0.25, requires_grad=True)
    term = lagrangian(sparsity, 0.75)
    term.backward()
    assert term.item() == pytest.approx(-2 * -0.5 + 3 * 0.25)
    assert sparsity.grad.item() == pytest.approx(-2 + 2 * 3 * -0.5)
    assert lagrangian.multipliers.grad.tolist() == pytest.approx([-0.5, 0.25])


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_ascent_of_the_multipliers_brings_the_sparsity_to_its_target_from_either_side(target):
    """Minimise (s - 0.4)^2 under s = t: at the saddle point lambda_1 = -2 (t - 0.4)."""
    lagrangian, sparsity = Lagrangian(torch.device("cpu")), torch.tensor(0.4, requires_grad=True)
    optimizer = torch.optim.SGD(
        [{"params": [sparsity]}, {"params": [lagrangian.multipliers], "maximize": True}], lr=0.1
    )
    for _ in range(1000):
        optimizer.zero_grad()
        ((sparsity - 0.4).square() + lagrangian(sparsity, target)).backward()
        optimizer.step()
    assert sparsity.item() == pytest.approx(target, abs=1e-3)
    assert lagrangian.multipliers[0].item() == pytest.approx(-2 * (target - 0.4), abs=1e-2)
