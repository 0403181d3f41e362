"""Which parameters of a network are its first layer, its classifier, its embeddings and so on."""

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def parts(network: nn.Module) -> dict[str, set[str]]:
    """Kind -> names of parameters, as in `network.named_parameters()`; a kind the network does not have is empty.

    `first`: the first convolution, in order of registration.
    `classifier`: the output layer.
    `depthwise`: convolutions with as many groups as input channels, and more than one.
    `embeddings`: every `nn.Embedding`.
    `head`: of a Hugging Face model, everything outside the encoder, and the encoder's pooler.

    The network must be plain: parametrizations rename parameters.
    """
    modules = dict(network.named_modules())
    convolutions = {name: module for name, module in modules.items() if isinstance(module, CONVOLUTIONS)}
    depthwise = {name: conv for name, conv in convolutions.items() if conv.groups == conv.in_channels > 1}
    embeddings = {name: module for name, module in modules.items() if isinstance(module, nn.Embedding)}
    return {
        "first": _parameters(dict(list(convolutions.items())[:1])),
        "classifier": _parameters(_classifier(network)),
        "depthwise": _parameters(depthwise),
        "embeddings": _parameters(embeddings),
        "head": _head(network),
    }


def output_layers(network: nn.Module) -> list[str]:
    """The paths of the modules that belong to a task: the classifier, and of a Hugging Face model all but the encoder.

    The network must be plain.

    Raises:
        ValueError: there is no such module.
    """
    encoder = encoder_of(network)
    shared = set(network.parameters()) if encoder is None else set(encoder.parameters())
    names = {name for name, parameter in network.named_parameters() if parameter not in shared}
    paths = {name.rpartition(".")[0] for name in names | _parameters(_classifier(network))}
    if not paths or "" in paths:
        raise ValueError(
            f"model: the output layer of {type(network).__name__} is no module of its own, which a second task needs; "
            "take another model, or auxiliary=none"
        )
    return sorted(path for path in paths if not any(path.startswith(f"{other}.") for other in paths))


def encoder_of(network: nn.Module) -> nn.Module | None:
    """The encoder inside a Hugging Face model, or inside a module that wraps one; None for anything else."""
    for module in network.modules():
        encoder = getattr(module, getattr(module, "base_model_prefix", "") or "_", None)
        if isinstance(encoder, nn.Module):
            return encoder
    return None


def _classifier(network: nn.Module) -> dict[str, nn.Module]:
    """Name -> the output layers: what timm says; or the last Linear, outside the encoder if there is one."""
    modules = dict(network.named_modules())
    if hasattr(network, "get_classifier"):  # timm; a tuple for models with a distillation head
        said = network.get_classifier()
        said = said if isinstance(said, tuple) else (said,)
        found = {name: module for name, module in modules.items() if any(module is one for one in said)}
        if _parameters(found):
            return found
    encoder = encoder_of(network)
    inside = set(encoder.modules()) if encoder is not None else set()
    outside = {name: module for name, module in modules.items() if module not in inside}
    for kinds in (nn.Linear, CONVOLUTIONS):  # a convolution in networks without a Linear, such as SqueezeNet
        layers = [(name, module) for name, module in outside.items() if isinstance(module, kinds)]
        if layers:
            return dict(layers[-1:])
    return {}


def _head(network: nn.Module) -> set[str]:
    """Parameters outside the encoder and of its pooler; none without an encoder."""
    encoder = encoder_of(network)
    if encoder is None:
        return set()
    kept = {id(parameter) for parameter in encoder.parameters()}
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        kept -= {id(parameter) for parameter in pooler.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) not in kept}


def _parameters(modules: dict[str, nn.Module]) -> set[str]:
    """Full names of all parameters of these modules. modules: name in the network -> module."""
    return {
        f"{name}.{key}" if name else key for name, module in modules.items() for key, _ in module.named_parameters()
    }
