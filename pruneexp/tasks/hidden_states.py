"""Distillation of hidden states: besides the teacher's outputs, the student learns what each encoder layer computes.

    L = (1 - a) L_task + a T^2 KL(teacher || student) + b mean over layers l of D(H_l student, H_l teacher)
    D(S, T) = mean over texts, their tokens and the width of (S - T)^2, padding left out

(Jiao et al. 2020, "TinyBERT", arXiv 1909.10351, who sum over the layers and have attention scores besides; Sun et al.
2019, "Patient knowledge distillation", arXiv 1908.09355, match the first token alone.) The mean over the tokens of each
text comes before the mean over texts, so that micro-batches and processes add up to the loss of the whole batch.

There is no projection between widths: student and teacher are equally wide. A deeper teacher is matched at every k-th
layer, TinyBERT's uniform map.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruneexp.datasets.base import Batch
from pruneexp.tasks.base import Task
from pruneexp.tasks.distillation import Distillation


class HiddenStates(Distillation):
    """Distillation of a transformer's outputs and hidden states."""

    def __init__(
        self,
        task: Task,
        teacher_model: nn.Module,
        *,
        hidden_weight: float,
        layers: list[int] | None,
        **distillation: Any,
    ) -> None:
        """Wraps a task.

        hidden_weight: b, not negative. layers: those of the student to match, 1 for the first encoder layer and 0 for
        the embeddings; None for all encoder layers.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__(task, teacher_model, **distillation)
        if hidden_weight < 0:
            raise ValueError(f"distillation.hidden_weight={hidden_weight}: must not be negative")
        self.hidden_weight = hidden_weight
        self.layers = layers

    def check(self, model: nn.Module) -> None:
        """Raises ValueError unless student and teacher are transformers of one width whose layers can be paired."""
        depth, width = encoder_size(model)
        teacher_depth, teacher_width = encoder_size(self.teacher_model)
        if width != teacher_width:
            raise ValueError(
                f"distillation.teacher={self.teacher}: its hidden states are {teacher_width} wide, the student's "
                f"{width}; take a teacher of the same width, or distillation=logits"
            )
        layer_pairs(depth, teacher_depth, self.layers)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mixed loss; all parts see the same forward pass of the student."""
        if self.hidden_weight == 0:
            return super().loss(model, batch)
        outputs, states = predict_with_states(model, batch["inputs"])
        with torch.no_grad():
            wanted, wanted_states = predict_with_states(self.teacher_model, batch["inputs"])
        real = batch["inputs"]["attention_mask"]
        pairs = layer_pairs(len(states) - 1, len(wanted_states) - 1, self.layers)
        distances = [masked_distance(states[own], wanted_states[other], real) for own, other in pairs]
        return self.mixed(outputs, wanted, batch) + self.hidden_weight * torch.stack(distances).mean()


def predict_with_states(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The model's outputs, (batch, outputs), and its hidden states, each (batch, tokens, width).

    model: of transformers, or a wrapper of one. The states are those of the embeddings, then of each encoder layer.
    """
    result = model(**inputs, output_hidden_states=True)
    return result.logits, result.hidden_states


def masked_distance(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """D above, a scalar. student, teacher: (batch, tokens, width). real: (batch, tokens), nonzero where no padding."""
    real = real.bool()
    squared = (student.float() - teacher.float()).square().mean(dim=2)
    return (squared.where(real, 0).sum(dim=1) / real.sum(dim=1)).mean()


def layer_pairs(student_depth: int, teacher_depth: int, layers: Sequence[int] | None) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer) for each layer to match: l and l x teacher_depth / student_depth.

    Depths are numbers of encoder layers; layer 0 is the embeddings. layers: of the student; None for 1, 2, ...

    Raises:
        ValueError: there is no such layer, or the teacher's depth is no multiple of the student's.
    """
    if teacher_depth % student_depth:
        raise ValueError(
            f"distillation.teacher: has {teacher_depth} layers, no multiple of the student's {student_depth}; "
            "take a teacher whose layers can be paired with the student's, or distillation=logits"
        )
    chosen = range(1, student_depth + 1) if layers is None else layers
    if not chosen or any(not 0 <= layer <= student_depth for layer in chosen):
        raise ValueError(
            f"distillation.layers={list(chosen)}: want one or more of 0 (the embeddings) to {student_depth}"
        )
    return [(layer, layer * (teacher_depth // student_depth)) for layer in chosen]


def encoder_size(model: nn.Module) -> tuple[int, int]:
    """The number of encoder layers and the width of the hidden states of a model of transformers.

    Raises:
        ValueError: it is another kind of model.
    """
    config = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    depth, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if depth is None or width is None:
        raise ValueError(
            "distillation=hidden and cofi: are for transformers, whose layers have hidden states; "
            f"{type(model).__name__} is none; take distillation=logits"
        )
    return depth, width
