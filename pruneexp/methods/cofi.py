"""CoFi: gates on coarse and fine units, learned under a size constraint (Xia, Zhong, Chen 2022, arXiv 2204.00408).

Every head (i, j), FFN unit (i, j), attention sub-layer i and FFN sub-layer i of an encoder has a gate z in [0, 1]:

    MHA_i(X) = z_MHA^i sum_j z_head^(i,j) Att_(i,j)(X)        FFN_i(X) = z_FFN^i gelu(X W_U) diag(z_int^i) W_D

In training each z is a sample of a hard-concrete distribution (`pruneexp.hard_concrete`), drawn anew in every forward
pass. With P = P(z > 0), the expected sparsity s counts the weights of a unit with P_layer P_unit
(`pruneexp.nesting`), and weights and log alpha minimise, lambda_1 and lambda_2 maximise,

    L + lambda_1 (s - t) + lambda_2 (s - t)^2                 t: the scheduled sparsity

after which units are closed for good and fine-tuning follows. The same works for units without nesting, such as the
channels of an image network. The paper's text could not be read beyond its abstract; equations and numbers are those
of the authors' code (princeton-nlp/CoFiPruning). Where this differs:

- No gates on the hidden dimensions. Embeddings are trained unless the optimizer is told otherwise.
- Closing for good. CoFi closes in each layer as many units as their expectation says, a sub-layer where P < 1/2, each
  alone. Rounding a product by its factors, and an expectation that has not settled, can miss the size by far, mostly
  above the target on little data. Here all units compete by P_layer P_unit and close until the size is met
  (`Nesting.closest`). In evaluations before that, `validation/*` is of CoFi's rule and `validation_hard/*` of ours at
  the scheduled sparsity.
- A unit that stays is scaled by its gate without noise, as in CoFi, where the factor enters the weights.
- A sub-layer that is closed leaves its residual path and the normalisation after it, as a network computes whose
  weights are zero; CoFi also drops that normalisation.

    prune-run method=cofi model=bert dataset=glue/mrpc dense=pretrained sparsity=0.6 epochs=120
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.budgets import Global
from pruneexp.gates import Gates
from pruneexp.groups import SliceGroup
from pruneexp.hard_concrete import HardConcrete
from pruneexp.lagrangian import Lagrangian
from pruneexp.learned_gates import LearnedGates
from pruneexp.masks import Masks
from pruneexp.methods.base import Pruner, Setting
from pruneexp.nesting import Nesting
from pruneexp.patterns import Pattern, TensorPattern
from pruneexp.schedules import Schedule

logger = logging.getLogger("pruneexp")

TOLERANCE = 0.005
"""How far expected and target sparsity may be apart at the end before the log says so."""


class CoFi(Pruner):
    """Gates on whole units, learned with the weights."""

    soft = True
    takes_overlap = True

    def __init__(
        self,
        *,
        sparsity: float,
        pattern: Pattern,
        schedule: Schedule,
        exclude: list[str],
        gate: HardConcrete,
        start: dict,
        noise: float,
        limit: float,
        gate_rate: float,
        multiplier_rate: float,
        harden_at: float,
    ) -> None:
        """Keeps the arguments.

        schedule: of the target t; before it rises above 0, there are no gates. gate: the distribution. start: log alpha
        at first, by kind of unit. noise: standard deviation around it. limit: largest alpha, 1 / limit the smallest.
        gate_rate, multiplier_rate: constant learning rates of Adam for log alpha and for both lambdas. harden_at:
        fraction of training after which units are closed for good and the rest is fine-tuning; 1 for the end.

        Raises:
            ValueError: a value is out of its range, or the units of the pattern are parts of single tensors.
        """
        super().__init__(sparsity=sparsity, pattern=pattern, budget=Global(), schedule=schedule, exclude=exclude)
        if isinstance(pattern, TensorPattern):
            raise ValueError(
                f"pattern={type(pattern).__name__}: CoFi has gates on whole units; take pattern=structured, "
                "channel or transformer"
            )
        for key, value in (("gate_rate", gate_rate), ("multiplier_rate", multiplier_rate)):
            if value <= 0:
                raise ValueError(f"method.{key}={value}: must be positive, a learning rate")
        if noise < 0:
            raise ValueError(f"method.noise={noise}: must not be negative, a standard deviation")
        if limit <= 1:
            raise ValueError(f"method.limit={limit}: must be above 1, the largest alpha")
        if not 0 < harden_at <= 1:
            raise ValueError(f"method.harden_at={harden_at}: must be in (0, 1], a fraction of training; 1 for the end")
        for kind, value in start.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"method.start.{kind}={value}: want a number, log alpha of these units at first")
        self.gate = gate
        self.start = start
        self.noise = noise
        self.limit = limit
        self.gate_rate = gate_rate
        self.multiplier_rate = multiplier_rate
        self.harden_at = harden_at
        self.step: int | None = None
        self.cached: dict[str, Tensor] = {}  # of this step, since evaluations ask again and again

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches gates to the network and makes what is learned."""
        super().setup(model, setting)
        self.network = model
        self.learned = LearnedGates(self._first_log_alpha(), self.gate, limit=self.limit)
        self.lagrangian = Lagrangian(self.learned.base.device)
        self.gates = Gates(self.groups.values(), self._values)
        self.attach(model, self.gates.parametrizations)
        self.gates.watch(model)
        self.harden_step = round(self.harden_at * self.timeline.total_steps)
        reached = self.schedule(self.target, max(0, self.harden_step - 1), self.timeline)
        if reached < self.target:
            raise ValueError(
                f"method.harden_at={self.harden_at}: the schedule reaches a sparsity of only {reached:.4g} of "
                f"{self.target:.4g} until then; raise it, or end the schedule earlier"
            )

    def check_target(self) -> None:
        """Raises ValueError if so many weights cannot be pruned: a group that is not in another keeps a unit."""
        groups = [group for group in self.groups.values() if isinstance(group, SliceGroup)]
        self.nesting = Nesting(groups, sum(weight.numel() for weight in self.weights.values()))
        most = self.nesting.most() / self.nesting.total
        if self.target > most:
            raise ValueError(
                f"sparsity={self.target}: whole units reach {most:.4f} at most, since one has to stay in each group; "
                "lower it or exclude small layers"
            )

    def _first_log_alpha(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        rows = []
        for group in self.groups.values():
            if group.kind not in self.start:
                raise ValueError(f"method.start={self.start}: has no number for {group.kind}; add one")
            rows.append(self.start[group.kind] + self.noise * torch.randn(group.unit_count, generator=generator))
        return torch.cat(rows).to(self.nesting.own.device)

    def param_groups(self) -> list[dict[str, Any]]:
        """Log alpha, which descends, and the multipliers, which ascend."""
        shared = {"adam": True, "scheduled": False}
        return [
            {"params": self.learned.parameters(), "lr": self.gate_rate, **shared},
            {"params": [self.lagrangian.multipliers], "lr": self.multiplier_rate, "maximize": True, **shared},
        ]

    def penalty(self) -> Tensor | float:
        """lambda_1 (s - t) + lambda_2 (s - t)^2 while gates are learned."""
        if not self._learning():
            return 0.0
        return self.lagrangian(self.nesting.sparsity(self.learned.openness()), self._scheduled())

    def before_step(self, step: int) -> bool:
        """Prepares the samples of the step; closes units for good when it is time."""
        if self.masks:
            return False
        if step >= self.harden_step:
            self._harden()
            return bool(self.masks)
        self.step = step
        self.cached.clear()
        self.learned.clamp_()
        self.learned.seed_(self.seed, step)
        return False

    def _scheduled(self) -> float:
        """t, 0 before training."""
        return 0.0 if self.step is None else self.schedule(self.target, self.step, self.timeline)

    def _learning(self) -> bool:
        return not self.masks and self._scheduled() > 0

    @torch.compiler.disable  # it depends on the step, and would be compiled again in every one
    def _values(self) -> dict[str, Tensor]:
        """The gates of a forward pass: a sample in training, CoFi's rule in evaluation."""
        if not self._learning():
            return {}
        return self.nesting.split(self.learned.sample() if self.network.training else self._deterministic())

    @torch.no_grad()
    def _deterministic(self) -> Tensor:
        """CoFi's gates for evaluation: in each layer the n lowest are 0, n = round(units - sum P), the others soft.

        Each sub-layer is a layer of its own. Besides, one that has no open unit left is closed, as in CoFi's removal.
        """
        if "deterministic" not in self.cached:
            self.learned.clamp_()
            keep = []
            for group, openness in zip(
                self.groups.values(), self.nesting.split(self.learned.openness()).values(), strict=True
            ):
                if group.kind in ("attention_layers", "ffn_layers"):
                    keep.append(openness >= 0.5)
                else:
                    zeros = round(float((1 - openness).sum()))
                    keep.append(openness.argsort(descending=True, stable=True).argsort() < len(openness) - zeros)
            open_units = self.nesting.without_empty_holders(torch.cat(keep))
            self.cached["deterministic"] = self.learned.value() * open_units
        return self.cached["deterministic"]

    @torch.no_grad()
    def _keep(self) -> Tensor:
        """The units that would stay if they were closed for good now, bool (units,)."""
        if "keep" not in self.cached:
            self.learned.clamp_()
            self.cached["keep"] = self.nesting.closest(self.learned.openness(), self._scheduled())
        return self.cached["keep"]

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with the units that would stay, scaled by their gates without noise."""
        if self._learning():
            keep = self._keep()
            with torch.no_grad():
                self.gates.frozen |= self.nesting.split(self.learned.value() * keep)
            self.gates.closed |= self.nesting.split(keep)
        try:
            yield
        finally:
            self.gates.frozen.clear()
            self.gates.closed.clear()

    def _harden(self) -> None:
        """Closes units for good, and multiplies the gates of the others into the weights."""
        if not self._learning():
            return
        self.cached.clear()
        with self.hardened(), torch.no_grad():
            self.gates.fold_(self.weights)
            expected = float(self.nesting.sparsity(self.learned.openness()))
        self.masks = self.nesting.masks(self._keep())
        if abs(expected - self.target) > TOLERANCE:
            logger.warning(
                "the gates expect a sparsity of %.4f where pruning ends, and the target is %.4f: the masks are at the "
                "target, but the network was not trained for it; train longer, or %s method.multiplier_rate",
                expected,
                self.target,
                "raise" if expected < self.target else "lower",
            )

    def sparsity(self) -> float:
        """The fraction of the prunable weights that closing units for good would prune now, or has pruned."""
        if not self._learning():
            return super().sparsity()
        return self.nesting.pruned(self._keep()) / self.nesting.total

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Target, expected sparsity, that of CoFi's own rule, both multipliers, and the mean P(z > 0) by kind."""
        if not self._learning():
            return {}
        openness = self.learned.openness()
        kinds = defaultdict(list)
        for name, values in self.nesting.split(openness).items():
            kinds[self.groups[name].kind].append(values)
        lambda_1, lambda_2 = self.lagrangian.multipliers.tolist()
        return {
            "cofi/target": self._scheduled(),
            "cofi/expected_sparsity": float(self.nesting.sparsity(openness)),
            "cofi/deterministic_sparsity": self.nesting.pruned(self._deterministic() > 0) / self.nesting.total,
            "cofi/lambda_1": lambda_1,
            "cofi/lambda_2": lambda_2,
            **{f"cofi/open/{kind}": float(torch.cat(values).mean()) for kind, values in kinds.items()},
        }

    def finalize(self) -> Masks:
        """The masks of the units that stay; the plain weights have their gates multiplied in."""
        if not self.masks:
            self._harden()
        self.gates.close()
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Masks, log alpha, multipliers and the last step, which the scheduled target follows from."""
        return {
            "masks": self.masks,
            "log_alpha": [parameter.detach() for parameter in self.learned.parameters()],
            "multipliers": self.lagrangian.multipliers.detach(),
            "step": self.step,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        for parameter, value in zip(self.learned.parameters(), state["log_alpha"], strict=True):
            parameter.copy_(value)
        self.lagrangian.multipliers.copy_(state["multipliers"])
        self.step = state["step"]
