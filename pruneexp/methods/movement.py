"""Movement pruning (Sanh, Wolf, Rush 2020, arXiv 2005.07683): weights that move towards zero go, not those near zero.

    forward     W_hat = W * M,   M = Top_v(S)                  v: the fraction that is kept; S: a learned score per unit
    backward    dL/dS = sum over the unit's weights of dL/dW_hat * W       straight through Top_v, for pruned units too
                dL/dW = dL/dW_hat * M

With gradient descent S falls by the rate times (dL/dW_hat) W: it gains where a step makes |w| larger. Pruned weights
stand still, but their scores go on, so that they can come back. S starts at 0 and has a learning rate of its own. v
falls from 1 along a cubic schedule, between a start with all weights and a cool-down with few.

A unit is a weight in the paper. Blocks have a score each, which sums over their weights (as in Lagunas et al. 2021,
arXiv 2109.04838); so have channels, heads and feed-forward units, over the weights where their output is switched off.

    prune-run method=movement model=bert dataset=glue/mrpc optimizer.learning_rate=3e-5 sparsity=0.85
"""

from typing import Any

from torch import Tensor, nn

from pruneexp.groups import merged
from pruneexp.learned_masks import masked, scores_of
from pruneexp.masks import Masks
from pruneexp.methods.base import Pruner, Setting


class Movement(Pruner):
    """Keeps the units with the highest learned scores."""

    def __init__(self, *, score_learning_rate: float, **pruner: Any) -> None:
        """score_learning_rate: of S, at the peak of the optimizer's schedule.

        Raises:
            ValueError: it is not positive.
        """
        super().__init__(**pruner)
        if score_learning_rate <= 0:
            raise ValueError(f"method.score_learning_rate={score_learning_rate}: must be positive")
        self.score_learning_rate = score_learning_rate
        self.current: dict[str, float] = {}  # the sparsity of each group now

    def setup(self, model: nn.Module, setting: Setting) -> None:
        """Gives every group its scores and lets them mask its weights."""
        super().setup(model, setting)
        self.scores = {name: scores_of(group, self.weights) for name, group in self.groups.items()}
        self.attach(model, masked(self.groups, self.scores))

    def param_groups(self) -> list[dict[str, Any]]:
        """One group with every score, without weight decay."""
        return [{"params": [scores.values for scores in self.scores.values()], "lr": self.score_learning_rate}]

    def before_step(self, step: int) -> bool:
        """Chooses what this step computes with. `masks` stays empty: pruned weights may come back."""
        wanted = self.schedule(self.target, step, self.timeline)
        if wanted > 0:
            self._choose(wanted)
        return False

    def _choose(self, wanted: float) -> None:
        if self.pattern.fixed_sparsity is None:
            scores = {name: self._of_layer(name) for name in self.groups}
            self.current = self.budget(scores, wanted, self._unit_sizes())
        else:
            self.current = dict.fromkeys(self.groups, wanted)
        for name, sparsity in self.current.items():
            self.scores[name].choose(sparsity)

    def _of_layer(self, name: str) -> Tensor:
        """The scores of a group as budgets want them: those of single weights in the shape of their tensor."""
        values = self.scores[name].ranked()
        return values.view(self.weights[name].shape) if self.groups[name].unit_size == 1 else values

    def sparsity(self) -> float:
        """The fraction of the prunable weights that the masks of this moment prune."""
        if self.masks or not self.current:
            return super().sparsity()
        return self.share(self.current)

    def finalize(self) -> Masks:
        """The masks of the last step."""
        if not self.current:
            self._choose(self.target)
        self.masks = merged(group.masks(self.scores[name].keep) for name, group in self.groups.items())
        self.detach()
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """What is kept; the scores themselves are in the model's state."""
        kept = {name: scores.keep for name, scores in self.scores.items()}
        return {"masks": self.masks, "keep": kept, "current": self.current}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        super().load_state_dict(state)
        self.current = state["current"]
        for name, keep in state["keep"].items():
            self.scores[name].keep = keep
