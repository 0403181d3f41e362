"""The whole units of a network under gates that are learned with its weights, at a sparsity that a constraint sets.

With P = P(z > 0) of the gates of a row (`pruneexp.learned_gates`) and s the expected sparsity (`pruneexp.nesting`),

    penalty = mean over rows of (lambda_1 (s - t) + lambda_2 (s - t)^2) + what the rows pay for being different

is added to the loss; t is the target of this moment. Each row has multipliers of its own. The mean over rows makes rows
that cannot differ the same problem as one row: Dery et al. 2023 (arXiv 2311.06382) write a size term for every mask,
which would count the constraint of equal masks twice.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.gate_options import GateOptions
from pruneexp.gates import Gates
from pruneexp.lagrangian import Lagrangian
from pruneexp.learned_gates import LearnedGates
from pruneexp.masks import Masks
from pruneexp.nesting import Nesting

logger = logging.getLogger("pruneexp")

TOLERANCE = 0.005
"""How far a sparsity may be from its target at the end before the log says so."""


class GatedUnits:
    """The gates of a network while they are learned, and what they leave behind.

    target: t of this step; while it is 0 there are no gates. closed: whether units are closed for good.
    """

    def __init__(
        self,
        network: nn.Module,
        nesting: Nesting,
        learned: LearnedGates,
        *,
        options: GateOptions,
        serves: Callable[[], str],
    ) -> None:
        """serves: gives the name of the task that the forward pass of this moment is for."""
        self.network = network
        self.nesting = nesting
        self.learned = learned
        self.options = options
        self.serves = serves
        self.lagrangians = {row: Lagrangian(learned.base.device) for row in learned.rows}
        self.gates = Gates(nesting.groups.values(), self._values)
        self.target = 0.0
        self.closed = False
        self.cached: dict[tuple[str, str], Tensor] = {}  # of this step, since evaluations ask again and again

    @property
    def learning(self) -> bool:
        """Whether there are gates."""
        return self.target > 0 and not self.closed

    @property
    def first(self) -> str:
        """The row of every task that has none of its own."""
        return self.learned.rows[0]

    def param_groups(self) -> list[dict[str, Any]]:
        """Log alpha, which descends, and the multipliers, which ascend."""
        shared = {"adam": True, "scheduled": False}
        multipliers = [lagrangian.multipliers for lagrangian in self.lagrangians.values()]
        return [
            *({**group, **shared} for group in self.learned.param_groups(self.options.gate_rate)),
            {"params": multipliers, "lr": self.options.multiplier_rate, "maximize": True, **shared},
        ]

    def penalty(self) -> Tensor | float:
        """The term of the loss while gates are learned."""
        if not self.learning:
            return 0.0
        terms = [
            lagrangian(self.nesting.sparsity(self.learned.openness(row)), self.target)
            for row, lagrangian in self.lagrangians.items()
        ]
        return torch.stack(terms).mean() + self.learned.penalty()

    def begin(self, step: int, *, target: float, seed: int) -> None:
        """Prepares a step. target: t. seed: of the run, for the samples."""
        self.target = target
        self.cached.clear()
        self.learned.clamp_()
        self.learned.seed_(seed, step)

    @torch.compiler.disable  # it depends on the step, and would be compiled again in every one
    def _values(self) -> dict[str, Tensor]:
        """The gates of a forward pass: a sample in training, CoFi's rule in evaluation."""
        if not self.learning:
            return {}
        row = self._row()
        return self.nesting.split(self.learned.sample(row) if self.network.training else self.deterministic(row))

    def _row(self) -> str:
        task = self.serves()
        return task if task in self.learned.rows else self.first

    @torch.no_grad()
    def deterministic(self, row: str) -> Tensor:
        """CoFi's gates for evaluation: in each layer the n lowest are 0, n = round(units - sum P), the others soft.

        Each sub-layer is a layer of its own. Besides, one that has no open unit left is closed, as in CoFi's removal.
        """
        if ("deterministic", row) not in self.cached:
            self.learned.clamp_()
            keep = []
            for name, openness in self.nesting.split(self.learned.openness(row)).items():
                if self.nesting.groups[name].kind in ("attention_layers", "ffn_layers"):
                    keep.append(openness >= 0.5)
                else:
                    zeros = round(float((1 - openness).sum()))
                    keep.append(openness.argsort(descending=True, stable=True).argsort() < len(openness) - zeros)
            open_units = self.nesting.without_empty_holders(torch.cat(keep))
            self.cached["deterministic", row] = self.learned.value(row) * open_units
        return self.cached["deterministic", row]

    @torch.no_grad()
    def keep(self, row: str) -> Tensor:
        """The units of a row that would stay if they were closed for good now, bool (units,)."""
        if ("keep", row) not in self.cached:
            self.learned.clamp_()
            self.cached["keep", row] = self.nesting.closest(self.learned.openness(row), self.target)
        return self.cached["keep", row]

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with the units of the first row that would stay, scaled by their gates without noise."""
        if self.learning:
            keep = self.keep(self.first)
            with torch.no_grad():
                self.gates.frozen |= self.nesting.split(self.learned.value(self.first) * keep)
            self.gates.closed |= self.nesting.split(keep)
        try:
            yield
        finally:
            self.gates.frozen.clear()
            self.gates.closed.clear()

    def close(self, weights: Mapping[str, Tensor], *, fold: bool = True) -> dict[str, Masks]:
        """Closes units for good: the masks of each row; none where there are no gates.

        weights: the stored parameters by dense name. fold: whether the gates that stay open in the first row are
        multiplied into them, in place. The log says where a sparsity is missed by more than TOLERANCE.
        """
        if not self.learning:
            self.closed = True
            return {}
        self.cached.clear()
        if fold:
            with self.hardened():
                self.gates.fold_(weights)
        for row in self.learned.rows:
            self._report(row)
        masks = {row: self.nesting.masks(self.keep(row)) for row in self.learned.rows}
        self.closed = True
        return masks

    @torch.no_grad()
    def _report(self, row: str) -> None:
        expected, masked = float(self.nesting.sparsity(self.learned.openness(row))), self.sparsity(row)
        gates = f"the gates of {row}" if row else "the gates"
        if abs(expected - self.target) > TOLERANCE:
            logger.warning(
                "%s expect a sparsity of %.4f where pruning ends, and the target is %.4f: the masks are at %.4f, "
                "but the network was not trained for it; train longer, or %s method.multiplier_rate",
                gates,
                expected,
                self.target,
                masked,
                "raise" if expected < self.target else "lower",
            )
        if abs(masked - self.target) > TOLERANCE:
            logger.warning(
                "sparsity=%.4f: the masks of %s are at %.4f, since units go as a whole; take another sparsity",
                self.target,
                gates,
                masked,
            )

    def sparsity(self, row: str) -> float:
        """The fraction of the weights that closing the units of a row for good would prune now."""
        return self.nesting.pruned(self.keep(row)) / self.nesting.total

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """By row: expected sparsity, that of CoFi's own rule, both multipliers, and the mean P(z > 0) by kind."""
        if not self.learning:
            return {}
        found = {"gates/scheduled_sparsity": self.target}
        for row in self.learned.rows:
            start = f"gates/{row}" if row else "gates"
            openness = self.learned.openness(row)
            kinds = defaultdict(list)
            for name, values in self.nesting.split(openness).items():
                kinds[self.nesting.groups[name].kind].append(values)
            lambda_1, lambda_2 = self.lagrangians[row].multipliers.tolist()
            found |= {
                f"{start}/expected_sparsity": float(self.nesting.sparsity(openness)),
                f"{start}/deterministic_sparsity": self.nesting.pruned(self.deterministic(row) > 0)
                / self.nesting.total,
                f"{start}/lambda_1": lambda_1,
                f"{start}/lambda_2": lambda_2,
                **{f"{start}/open/{kind}": float(torch.cat(values).mean()) for kind, values in kinds.items()},
            }
        return found

    def state_dict(self) -> dict[str, Any]:
        """What is learned, the target of this moment, and whether units are closed for good."""
        return {
            "log_alpha": [parameter.detach() for parameter in self.learned.parameters()],
            "multipliers": [lagrangian.multipliers.detach() for lagrangian in self.lagrangians.values()],
            "target": self.target,
            "closed": self.closed,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        own = [*self.learned.parameters(), *(lagrangian.multipliers for lagrangian in self.lagrangians.values())]
        for parameter, value in zip(own, [*state["log_alpha"], *state["multipliers"]], strict=True):
            parameter.copy_(value)
        self.target, self.closed = state["target"], state["closed"]
