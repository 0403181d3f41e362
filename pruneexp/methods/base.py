"""What a pruning method is: hooks that the trainer calls in a fixed order.

One training step is

    method.before_step(step)                      thresholds, schedules
    loss = task.loss(model, batch) + method.penalty();  backward
    method.on_grads(step)                         dense, all-reduced gradients
    [the trainer masks gradients, steps the optimizer, and masks the weights with method.masks]

A hard-mask method sets `masks` and never touches a module. A soft method attaches parametrizations in `setup`, before
compilation and DDP, and removes them in `finalize`. Both end as a plain model with dense names and exact zeros.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from pruneexp.budgets import Budget
from pruneexp.datasets.base import Batch
from pruneexp.groups import Group, merged
from pruneexp.magnitudes import Magnitudes
from pruneexp.masks import Masks, owner, sparsity
from pruneexp.patterns import Pattern
from pruneexp.prunable import groups_of
from pruneexp.schedules import Schedule, Timeline
from pruneexp.stages import Stage
from pruneexp.tasks.base import Task


@dataclass(frozen=True)
class Setting:
    """What a method may know of the training it is part of.

    task: `task.names` are the tasks of the training, and while a forward pass runs, `task.current` is the one that it
    serves. batches: a few training batches for calibration, the same on every process and every time; they hold a batch
    of each task, the target's own inputs and labels first. seed: of the run; random choices come from generators seeded
    by (seed, step), so that all processes agree.
    """

    task: Task
    batches: Iterable[Batch]
    timeline: Timeline
    seed: int


class Method:
    """A method that prunes nothing: every hook with its no-op default.

    Attributes:
        masks: the hard masks in force, by dense name; empty while there are none.
        weights: the parameters that may be pruned, by dense name; empty before `setup`. Sparsity is a fraction of them.
        companions: other parameters that `masks` may have zeros in, as normalisations of a hidden dimension.
        soft: whether the forward pass sees soft masks, so that soft and hard accuracy differ.
        staged: whether there are stages that train some of several tasks only.
        auxiliary_masks: the final masks of auxiliary tasks that have others than the target, by task.
    """

    soft = False
    staged = False

    def __init__(self) -> None:
        self.masks: Masks = {}
        self.auxiliary_masks: dict[str, Masks] = {}
        self.weights: dict[str, nn.Parameter] = {}
        self.companions: dict[str, nn.Parameter] = {}
        self.parametrized: list[tuple[nn.Module, str]] = []

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Called once, before compilation and DDP: choose what to prune, attach parametrizations."""

    def stages(self) -> tuple[Stage, ...]:
        """The stages of the training, asked for after `setup`."""
        return (Stage(),)

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups of the method's own parameters, the keys as of `pruneexp.optimizers.Recipe.build`.

        Their gradients are averaged over processes, also those of parameters that are not in the model.
        """
        return []

    def penalty(self) -> Tensor | float:
        """A term to add to the loss."""
        return 0.0

    def before_step(self, step: int) -> bool:
        """Called before the forward pass of every step. True if `masks` changed."""
        return False

    def on_grads(self, step: int) -> bool:
        """Called when the dense gradients are there, averaged over processes. True if `masks` changed."""
        return False

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Called with the validation metrics, names as the task gives them, after `step` steps."""

    def sparsity(self) -> float:
        """The fraction of prunable weights that is pruned, or would be if soft masks were hard, in [0, 1]."""
        return sparsity(self.masks, self.weights)

    @contextmanager
    def hardened(self) -> Iterator[None]:
        """A context in which a soft method's model computes with the hard masks of this moment."""
        yield

    def metrics(self) -> dict[str, float]:
        """Numbers worth a line in metrics.jsonl: thresholds, multipliers."""
        return {}

    def finalize(self) -> Masks:
        """The final hard masks. Soft weights are folded into plain ones and parametrizations removed.

        The caller zeroes the weights that the masks prune.
        """
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: tensors, numbers, strings, and lists and dicts of them."""
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave, after `setup`."""
        self.masks = state["masks"]

    def attach(self, model: nn.Module, parametrizations: Mapping[str, nn.Module]) -> None:
        """Attaches one parametrization to each parameter, by dense name.

        `weights` and `companions` then hold the original ones.
        """
        for name, parametrization in parametrizations.items():
            module, leaf = owner(model, name)
            parametrize.register_parametrization(module, leaf, parametrization)
            held = self.companions if name in self.companions else self.weights
            held[name] = module.parametrizations[leaf].original
            self.parametrized.append((module, leaf))

    def detach(self) -> None:
        """Removes them again; the plain weights are the original ones."""
        for module, leaf in self.parametrized:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)


class Pruner(Method):
    """What methods share that prune to a target sparsity: pattern, budget, schedule, and what is left alone.

    takes_overlap: whether units may be parts of other units; not where units are ranked.
    """

    takes_overlap = False

    def __init__(
        self, *, sparsity: float, pattern: Pattern, budget: Budget, schedule: Schedule, exclude: list[str]
    ) -> None:
        """Keeps the arguments.

        sparsity: target fraction of the prunable weights, in [0, 1). exclude: names of `pruneexp.models.parts` or glob
        patterns over parameter names.

        Raises:
            ValueError: the sparsity is out of its range, or units of the pattern overlap that are to be ranked.
        """
        super().__init__()
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity={sparsity}: must be in [0, 1), the fraction of prunable weights to remove")
        if pattern.overlap and not self.takes_overlap:
            raise ValueError(f"{pattern.overlap}, and this method ranks units; take one of the two, or method=cofi")
        self.target = sparsity
        self.pattern = pattern
        self.budget = budget
        self.schedule = schedule
        self.exclude = exclude
        self.groups: dict[str, Group] = {}

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Finds the groups of prunable weights and checks that the schedule reaches its target in this training."""
        self.groups, self.weights, self.companions = groups_of(model, self.pattern, self.exclude, setting.batches)
        self.timeline = setting.timeline
        self.seed = setting.seed
        self.schedule.check(self.target, setting.timeline)
        self.check_target()

    @property
    def magnitudes(self) -> Magnitudes:
        """|w| of every prunable weight."""
        return Magnitudes(self.weights)

    def check_target(self) -> None:
        """Raises ValueError if the groups cannot reach the target."""
        if self.pattern.fixed_sparsity is None:
            counts = {name: group.unit_count for name, group in self.groups.items()}
            self.budget.check(counts, self.target, self._unit_sizes())

    def layer_budget(self, values: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
        """The sparsity of each group: the budget's, or the same for all where the pattern sets it.

        values: non-negative values of every weight, dense name -> (shape of the weight); larger = keep.
        """
        if self.pattern.fixed_sparsity is not None:
            return dict.fromkeys(self.groups, sparsity)
        sizes = self._unit_sizes()
        if all(sizes.get(name) == 1 for name in values):
            return self.budget(values, sparsity)
        return self.budget({name: group.scores(values) for name, group in self.groups.items()}, sparsity, sizes)

    def pruned(self, values: Mapping[str, Tensor], budget: Mapping[str, float]) -> Masks:
        """The masks that prune in each group its sparsity of the units with the smallest values."""
        return merged(
            group.masks(group.keep(values, budget[name])) for name, group in self.groups.items() if name in budget
        )

    def share(self, budget: Mapping[str, float]) -> float:
        """The fraction of the prunable weights that `pruned` would prune at these sparsities of the groups."""
        total = sum(weight.numel() for weight in self.weights.values())
        return sum(group.pruned_weights(budget[name]) for name, group in self.groups.items()) / total

    def _unit_sizes(self) -> dict[str, int]:
        return {name: group.unit_size for name, group in self.groups.items()}


class Scored(Pruner):
    """A hard-mask method that prunes what scores lowest. Subclasses give `scores`."""

    def __init__(self, *, update_every: int, **pruner: Any) -> None:
        """update_every: steps between updates of the masks while the schedule rises."""
        super().__init__(**pruner)
        if update_every < 1:
            raise ValueError(f"method.update_every={update_every}: must be at least 1 step")
        self.update_every = update_every
        self.current = 0.0

    @abstractmethod
    def scores(self, step: int) -> Mapping[str, Tensor]:
        """Non-negative scores, dense name -> tensor of the weight's shape; larger = keep."""

    def before_step(self, step: int) -> bool:
        """Updates the masks where the schedule has risen: every `update_every` steps, and when it reaches its end."""
        wanted = self.schedule(self.target, step, self.timeline)
        if wanted == self.current or (step % self.update_every and wanted < self.target):
            return False
        scores = self.scores(step)
        self.masks = self.pruned(scores, self.layer_budget(scores, wanted))
        self.current = wanted
        return True

    def state_dict(self) -> dict[str, Any]:
        """The masks and the sparsity they were made for."""
        return {"masks": self.masks, "current": self.current}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes both back."""
        super().load_state_dict(state)
        self.current = state["current"]
