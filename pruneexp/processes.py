"""What several processes that train one model have to agree on, besides what DDP sees to."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from pruneexp.failures import TrainingError
from pruneexp.masks import Masks, fingerprint


def average_gradients_(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Averages over processes the gradients of parameters that DDP does not know."""
    if accelerator.num_processes > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")


def check_same_masks(accelerator: Accelerator, masks: Masks, step: int) -> None:
    """Raises TrainingError if the processes have different masks."""
    if accelerator.num_processes > 1 and len(set(gather_object([fingerprint(masks)]))) > 1:
        raise TrainingError(f"step {step}: the processes disagree on the masks; this is a defect of the method")


def on_any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether it is so on any process; all have to ask."""
    return bool(accelerator.gather(torch.tensor([flag], device=accelerator.device)).any())
