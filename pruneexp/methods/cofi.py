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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pruneexp.budgets import Global
from pruneexp.gate_options import GateOptions, check_whole_units, closing_step
from pruneexp.gated_units import GatedUnits
from pruneexp.hard_concrete import HardConcrete
from pruneexp.learned_gates import LearnedGates
from pruneexp.masks import Masks
from pruneexp.methods.base import Pruner, Setting
from pruneexp.nesting import Nesting
from pruneexp.patterns import Pattern
from pruneexp.schedules import Schedule
from pruneexp.surgery.compact import compact_, expand_


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

        schedule: of the target t; before it rises above 0, there are no gates. gate, start, noise, limit, gate_rate,
        multiplier_rate: as of `GateOptions`. harden_at: fraction of training after which units are closed for good and
        the rest is fine-tuning; 1 for the end.

        Raises:
            ValueError: a value is out of its range, or the units of the pattern are parts of single tensors.
        """
        super().__init__(sparsity=sparsity, pattern=pattern, budget=Global(), schedule=schedule, exclude=exclude)
        check_whole_units(pattern)
        self.options = GateOptions(gate, start, noise, limit, gate_rate, multiplier_rate)
        self.harden_at = harden_at
        self.compacted: list[nn.Linear] = []

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches gates to the network and makes what is learned."""
        super().setup(model, setting)
        self.network = model
        self.harden_step = closing_step(self.harden_at, self.schedule, self.target, self.timeline)
        start = self.options.first_log_alpha(self.nesting, self.seed)
        learned = LearnedGates(start, self.options.gate, limit=self.options.limit)
        self.units = GatedUnits(model, self.nesting, learned, options=self.options)
        self.attach(model, self.units.gates.parametrizations)
        self.units.gates.watch(model)

    def check_target(self) -> None:
        """Raises ValueError if so many weights cannot be pruned: a group that is not in another keeps a unit."""
        self.nesting = Nesting(self.groups.values(), sum(weight.numel() for weight in self.weights.values()))
        self.nesting.check(self.target)

    def param_groups(self) -> list[dict[str, Any]]:
        """Log alpha, which descends, and the multipliers, which ascend."""
        return self.units.param_groups()

    def penalty(self) -> Tensor | float:
        """lambda_1 (s - t) + lambda_2 (s - t)^2 while gates are learned."""
        return self.units.penalty()

    def before_step(self, step: int) -> bool:
        """Prepares the samples of the step; closes units for good when it is time."""
        if step < self.harden_step:
            self.units.begin(step, target=self.schedule(self.target, step, self.timeline), seed=self.seed)
        elif not self.units.closed:
            self._close()
            return bool(self.masks)
        return False

    def _close(self) -> None:
        self.masks = self.units.close(self.weights).get(self.units.first, {})
        self.compacted = compact_(self.network, self.masks)

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """Computes with the units that would stay, scaled by their gates without noise."""
        with self.units.hardened():
            yield

    def sparsity(self) -> float:
        """The fraction of the prunable weights that closing units for good would prune now, or has pruned."""
        return self.units.sparsity(self.units.first) if self.units.learning else super().sparsity()

    def metrics(self) -> dict[str, float]:
        """Target, expected sparsity, that of CoFi's own rule, both multipliers, and the mean P(z > 0) by kind."""
        return self.units.metrics("cofi")

    def finalize(self) -> Masks:
        """The masks of the units that stay; the plain weights have their gates multiplied in."""
        if not self.units.closed:
            self._close()
        expand_(self.compacted)
        self.units.gates.close()
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Masks, and what the gates have to remember."""
        return {**super().state_dict(), "units": self.units.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.units.load_state_dict(state["units"])
        self.compacted = compact_(self.network, self.masks)
