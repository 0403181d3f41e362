"""CoFi's distillation of layers: each teacher layer teaches the student layer that is closest to it at that moment.

    L = c ((1 - a) L_task + a T^2 KL(teacher || student)) + b sum over teacher layers i of D(W S_m(i), T_i)

S and T are hidden states of student and teacher, W a square matrix that is learned and starts as the identity, and D
the mean squared distance, padding left out. m(i) is the closest among the student's layers that are open, which a
structured pruner decides: those whose FFN passes on something. Besides, the authors' "version 4" for small data goes
through the teacher's layers from the last to the first and matches each below the one before, so that m increases; a
layer with none left below is not matched. "Version 3" takes the closest without that.

Xia, Zhong, Chen 2022 (arXiv 2204.00408), whose text could not be read beyond its abstract: this is the authors' code
(princeton-nlp/CoFiPruning), but for the layers that count as open, which a description of the paper has as above, while
the code asks for open attention layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.datasets.base import Batch
from pruneexp.models.encoder_layers import encoder_layers
from pruneexp.tasks.base import Task
from pruneexp.tasks.distillation import Distillation
from pruneexp.tasks.hidden_states import encoder_size, masked_distance, predict_with_states


class DynamicLayers(Distillation):
    """Distillation of a transformer's outputs, and of its hidden states to the closest open layers."""

    def __init__(
        self,
        task: Task,
        teacher_model: nn.Module,
        *,
        output_weight: float,
        layer_weight: float,
        layers: list[int] | None,
        increasing: bool,
        **distillation: Any,
    ) -> None:
        """Wraps a task.

        output_weight, layer_weight: c and b, not negative. layers: those of the teacher, 1 for the first encoder layer;
        None for the ends of its quarters. increasing: version 4 of the matching, else version 3.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__(task, teacher_model, **distillation)
        for key, value in (("output_weight", output_weight), ("layer_weight", layer_weight)):
            if value < 0:
                raise ValueError(f"distillation.{key}={value}: must not be negative")
        self.output_weight = output_weight
        self.layer_weight = layer_weight
        self.layers = layers
        self.increasing = increasing

    def check(self, model: nn.Module) -> None:
        """Makes W; raises ValueError unless student and teacher are encoders of one width with such layers."""
        _, width = encoder_size(model)
        depth, teacher_width = encoder_size(self.teacher_model)
        if width != teacher_width:
            raise ValueError(
                f"distillation.teacher={self.teacher}: its hidden states are {teacher_width} wide, the student's "
                f"{width}; take a teacher of the same width, or distillation=logits"
            )
        if not encoder_layers(model):
            raise ValueError(f"distillation=cofi: {type(model).__name__} has no layers named as in BERT or DistilBERT")
        chosen = quarters(depth) if self.layers is None else self.layers
        if not chosen or any(not 1 <= layer <= depth for layer in chosen):
            raise ValueError(f"distillation.layers={chosen}: want one or more of 1 to {depth}, layers of the teacher")
        self.taught = sorted(set(chosen))
        self.student = model
        self.own = nn.Linear(width, width, bias=False, dtype=next(model.parameters()).dtype)
        nn.init.eye_(self.own.weight)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mixed loss; all parts see the same forward pass of the student. model: it, or its wrapped `module`."""
        compute = partial(self._loss, batch)
        return compute() if model is self.student else model(compute)

    def _loss(self, batch: Batch) -> Tensor:
        outputs, states = predict_with_states(self.student, batch["inputs"])
        with torch.no_grad():
            wanted, wanted_states = predict_with_states(self.teacher_model, batch["inputs"])
        loss = self.output_weight * self.mixed(outputs, wanted, batch)
        real = batch["inputs"]["attention_mask"]
        pairs = self._pairs(states, wanted_states, real)
        for own, other in pairs:
            loss = loss + self.layer_weight * masked_distance(self.own(states[own]), wanted_states[other], real)
        return loss if pairs else loss + 0.0 * self.own.weight.sum()  # DDP wants every parameter in every step

    @torch.no_grad()
    def _pairs(self, states: Sequence[Tensor], wanted: Sequence[Tensor], real: Tensor) -> list[tuple[int, int]]:
        """(student's layer, teacher's layer) for every layer that is matched."""
        candidates = open_layers(self.student)
        if not candidates:
            return []
        projected = {layer: self.own(states[layer]) for layer in candidates}
        rows = [
            [masked_distance(projected[layer], wanted[other], real) for layer in candidates] for other in self.taught
        ]
        distances = torch.stack([torch.stack(row) for row in rows]).tolist()
        return matched(distances, candidates, self.taught, increasing=self.increasing)


def quarters(depth: int) -> list[int]:
    """The last layer of each quarter of an encoder: 3, 6, 9, 12 of 12."""
    return sorted({max(1, depth * quarter // 4) for quarter in range(1, 5)})


@torch.no_grad()
def open_layers(network: nn.Module) -> list[int]:
    """The encoder layers, 1 for the first, whose FFN's output projection is not all zero at this moment."""
    modules = [network.get_submodule(layer.ffn_output) for layer in encoder_layers(network)]
    used = torch.stack([module.weight.any() for module in modules]).tolist()  # one wait for a device, not one a layer
    return [number for number, open_now in enumerate(used, start=1) if open_now]


def matched(
    distances: Sequence[Sequence[float]], students: Sequence[int], teachers: Sequence[int], *, increasing: bool
) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer) pairs, the teacher's ascending.

    distances: one row for each of `teachers`, one column for each of `students`, both ascending.
    """
    pairs = []
    below = len(students)
    for row, teacher in zip(reversed(distances), reversed(teachers), strict=True):
        if below:
            column = min(range(below), key=row.__getitem__)
            pairs.append((students[column], teacher))
            below = column if increasing else below
    return pairs[::-1]
