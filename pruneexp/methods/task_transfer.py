"""Structured pruning with task transfer (Dery, Grangier, Hannun 2023, arXiv 2311.06382).

A target task with little data is pruned better with the help of auxiliary tasks A. As in CoFi, every unit has a gate z
that is learned with the weights theta under a size constraint, and once units are closed for good, fine-tuning follows
(`pruneexp.gated_units`). With L_T, L_A the losses, w their weights, and Size the constraint:

    coupling    how the tasks share the pruning
      none        L_T(theta, z) + Size(z)                              the auxiliary tasks are left out: CoFi
      single      w_T L_T(theta, z) + w_A L_A(theta, z) + Size(z)
      multi       w_T L_T(theta, z_T) + w_A L_A(theta, z_A) + Size(z_T) + Size(z_A)
      delta       as multi, with z_T = z_base + delta_T, z_A = z_base + delta_A, and mu (||delta_T||^2 + ||delta_A||^2)

    order       when they do: what is pruned on, and what is fine-tuned on
      both_then_target          all tasks, then the target
      target_then_both          the target, then all tasks
      auxiliary_then_target     the auxiliary tasks, then the target

    transfer    what fine-tuning takes over from pruning
      both        weights and mask
      weights     the weights, and a mask of random units of the same size
      masks       the mask, and the weights that pruning started from

The paper's is delta, both_then_target, both. Where it leaves things open:

- The sum of z is one of log alpha, before sampling (`pruneexp.learned_gates.DeltaGates`). Each mask meets the target
  sparsity by multipliers of its own. The size terms are averaged over the masks, not summed (`pruneexp.gated_units`).
- The network keeps the target's mask. The masks of other tasks are recorded, and closed to the target as well.
- Fine-tuning is a stage of its own: its learning rate runs the whole schedule again, and the optimizer starts fresh.
- The gates that stay open are multiplied into the weights where both are taken over, as CoFi does, and not elsewhere.
- Weights that are taken back are all of the network's: embeddings, normalisations and the target's head, too.

    prune-run method=task_transfer model=bert dataset=glue/mrpc auxiliary=glue/stsb dense=pretrained sparsity=0.95
"""

import logging
from typing import Any, Literal

import torch
from torch import nn

from pruneexp.datasets.base import TARGET
from pruneexp.learned_gates import DeltaGates, LearnedGates, SeparateGates
from pruneexp.masks import Masks, stored_parameter
from pruneexp.methods.base import Setting
from pruneexp.methods.gated import Gated
from pruneexp.stages import Stage

logger = logging.getLogger("pruneexp")

Coupling = Literal["none", "single", "multi", "delta"]
Order = Literal["both_then_target", "target_then_both", "auxiliary_then_target"]
Transfer = Literal["both", "weights", "masks"]


class TaskTransfer(Gated):
    """Gates on whole units, learned for a target task together with auxiliary ones."""

    staged = True

    def __init__(
        self,
        *,
        coupling: Coupling,
        delta_penalty: float,
        order: Order,
        transfer: Transfer,
        fine_tuning_rate: float | None,
        **gated: Any,
    ) -> None:
        """Keeps the arguments.

        coupling, order, transfer: see above. delta_penalty: mu, not negative. fine_tuning_rate: the learning rate of
        fine-tuning at the peak, None for that of pruning. gated: as of `Gated`.

        Raises:
            ValueError: a value is out of its range, the values contradict each other, or as `Gated`.
        """
        super().__init__(**gated)
        if delta_penalty < 0:
            raise ValueError(f"method.delta_penalty={delta_penalty}: must not be negative")
        if fine_tuning_rate is not None and fine_tuning_rate <= 0:
            raise ValueError(f"method.fine_tuning_rate={fine_tuning_rate}: must be positive, or null for pruning's")
        if coupling == "none" and order != "both_then_target":
            raise ValueError(
                f"method.order={order}: needs the auxiliary tasks, which method.coupling=none leaves out; take another "
                "coupling or leave method.order out"
            )
        self.coupling = coupling
        self.delta_penalty = delta_penalty
        self.order = order
        self.transfer = transfer
        self.fine_tuning_rate = fine_tuning_rate

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Attaches gates to the network and makes what is learned.

        Raises:
            ValueError: the order or the coupling does not fit the tasks, or as other methods.
        """
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        # A resumed run sets up the same network before it loads its checkpoint, so that this is not to be saved.
        self.before = {name: tensor.detach().clone() for name, tensor in tensors.items() if self.transfer == "masks"}
        super().setup(model, setting)

    def _tasks(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tasks of pruning and those of fine-tuning. names: of all, the target first."""
        target, others = names[:1], names[1:]
        if not others and self.coupling != "none":
            if self.order != "both_then_target":
                raise ValueError(f"method.order={self.order}: there is no auxiliary task; add auxiliary=...")
            logger.warning("method.coupling=%s: there is no auxiliary task, the target prunes alone", self.coupling)
        if self.order != "both_then_target" and self.harden_step == self.timeline.total_steps:
            raise ValueError(f"method.harden_at={self.harden_at}: leaves no step for fine-tuning; lower it")
        if self.order == "auxiliary_then_target":
            if len(others) > 1 and self.coupling != "single":
                raise ValueError(
                    f"method.coupling={self.coupling}: with several auxiliary tasks before the target, which has no "
                    "mask of its own then, there must be one mask; take method.coupling=single"
                )
            return others, target
        if self.order == "target_then_both":
            return target, names
        return (target if self.coupling == "none" else names), target

    def learned_gates(self, setting: Setting) -> LearnedGates:
        """The gates of the tasks that are pruned on: one row where there is one, or where they share it."""
        self.pruned_on, self.tuned_on = self._tasks(setting.task.names)
        gate, limit, tasks = self.options.gate, self.options.limit, self.pruned_on
        if len(tasks) > 1 and self.coupling == "multi":
            return SeparateGates(self.first_log_alpha(), gate, limit=limit, tasks=tasks)
        if len(tasks) > 1 and self.coupling == "delta":
            return DeltaGates(self.first_log_alpha(), gate, limit=limit, tasks=tasks, mu=self.delta_penalty)
        return super().learned_gates(setting)

    def stages(self) -> tuple[Stage, ...]:
        """Pruning, and where there are steps left for it, fine-tuning."""
        pruning = Stage(tasks=self.pruned_on)
        if self.harden_step == self.timeline.total_steps:
            return (pruning,)
        return pruning, Stage(self.harden_step, self.tuned_on, self.fine_tuning_rate)

    def close_units(self) -> None:
        """Closes units for good and leaves of weights and mask what is to be taken over."""
        random = self._random_masks() if self.transfer == "weights" and self.units.learning else None
        masks = self.units.close(self.weights | self.companions, fold=self.transfer == "both")
        self.masks = random or masks.pop(self.units.first, {})
        self.auxiliary_masks = {
            task: {name: mask for name, mask in own.items() if name in self.weights}
            for task, own in masks.items()
            if task not in ("", TARGET)
        }
        if self.transfer == "masks":
            self._take_back_()

    def _random_masks(self) -> Masks:
        """Masks of random units of the target size: heads, FFN units and channels alike; what holds them follows."""
        order = torch.rand(len(self.nesting.own), generator=torch.Generator().manual_seed(self.seed))
        order = order.to(self.nesting.own.device).masked_fill(self.nesting.is_holder, 1.0)
        return self.nesting.masks(self.nesting.closest(order, self.units.target))

    @torch.no_grad()
    def _take_back_(self) -> None:
        """Gives the network the weights and statistics that pruning started from, in place."""
        for name, value in self.before.items():
            stored_parameter(self.network, name).copy_(value)
        self.before.clear()

    def state_dict(self) -> dict[str, Any]:
        """The masks of every task, and what the gates have to remember."""
        return {**super().state_dict(), "auxiliary_masks": self.auxiliary_masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.auxiliary_masks = state["auxiliary_masks"]
