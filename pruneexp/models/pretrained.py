"""Fitting the weights of a network that was trained on other images."""

import logging

from torch import Tensor, nn

from pruneexp.models.checkpoints import few
from pruneexp.models.parts import parts

logger = logging.getLogger("pruneexp")

FROM_FILE = "set model.pretrained=<file> (fitted to the data) or model.checkpoint=<file> (as it is)"
"""The remedy where weights cannot be downloaded."""


def load_pretrained(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads weights in place, but for a classifier or first convolution that has another shape.

    Those keep their initial values, which the log says. For images of one channel the first convolution's weights are
    summed over the colours, which gives the output that three equal channels would have. source: for messages.

    Raises:
        ValueError: other keys or shapes do not fit.
    """
    own, kinds = network.state_dict(), parts(network)
    replaceable = kinds["first"] | kinds["classifier"]
    fitting = {
        key: _fit(key, tensor, own[key], first=key in kinds["first"]) for key, tensor in state.items() if key in own
    }
    for key in [key for key, tensor in fitting.items() if tensor.shape != own[key].shape]:
        shapes = f"{tuple(own[key].shape)} in the model, {tuple(fitting.pop(key).shape)} there"
        if key not in replaceable:
            raise ValueError(f"{source}: {key} has shape {shapes}; choose weights of this model")
        logger.info("%s: %s initialised anew: its shape is %s", source, key, shapes)
    missing = network.load_state_dict(fitting, strict=False).missing_keys
    lacking = [key for key in missing if key not in replaceable]
    if lacking:
        raise ValueError(f"{source}: has no {few(lacking)}; choose weights of this model")


def _fit(key: str, tensor: Tensor, own: Tensor, *, first: bool) -> Tensor:
    """The weights, summed over the input channels if they are the first convolution's and the images have one."""
    if first and tensor.dim() > 1 and own.shape[1] == 1 and tensor.shape[1] > 1:
        logger.info("%s: summed over the colours, as the images have one channel", key)
        return tensor.sum(1, keepdim=True)
    return tensor
