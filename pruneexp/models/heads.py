"""Heads of further tasks on a network: what each task has to itself, put in place while the network serves it.

The network stays as it is, with the target's output layers under their own names, so that pruning, checkpoints and
surgery see an ordinary model. An auxiliary task has its own output layers and its own batch-norm statistics: a network
that normalised two kinds of data by one running mean would be right for neither in evaluation.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pruneexp.models.parts import output_layers


class Own(nn.Module):
    """What an auxiliary task has to itself: output layers and statistics, named by their paths in the network."""

    def __init__(self, network: nn.Module, donor: nn.Module) -> None:
        """donor: such a network made for this task; its output layers are taken. The statistics are copied."""
        super().__init__()
        self.layers = output_layers(network)
        for path in self.layers:
            self.add_module(_key(path), donor.get_submodule(path))
        theirs = {module for path in self.layers for module in network.get_submodule(path).modules()}
        self.statistics: list[tuple[str, str]] = []  # path of the norm, name of the buffer
        for path, module in network.named_modules():
            if isinstance(module, _NormBase) and module not in theirs:
                for name, buffer in module.named_buffers(recurse=False):
                    self.statistics.append((path, name))
                    self.register_buffer(_key(f"{path}.{name}"), buffer.detach().clone())

    def exchange_(self, network: nn.Module) -> None:
        """Puts everything in its place in `network`, in place, and takes in what was there; twice changes nothing."""
        for path in self.layers:
            there, here = network.get_submodule(path), getattr(self, _key(path))
            network.set_submodule(path, here)
            setattr(self, _key(path), there)
        for path, name in self.statistics:
            norm, key = network.get_submodule(path), _key(f"{path}.{name}")
            there, here = getattr(norm, name), getattr(self, key)
            setattr(norm, name, here)
            setattr(self, key, there)


class Heads(nn.Module):
    """A network with the heads of its auxiliary tasks: the module that is trained where there are such tasks.

    All forward passes of a step happen inside one call of this module, since DDP and mixed precision act on that call:
    DDP wants to see every parameter used between one forward and its backward.
    """

    def __init__(self, network: nn.Module, donors: Mapping[str, nn.Module]) -> None:
        """network: plain, made for the target. donors: task -> such a network made for that task.

        Raises:
            ValueError: the network's output layers cannot be told apart from the rest.
        """
        super().__init__()
        self.network = network
        self.own = nn.ModuleDict({_key(name): Own(network, donor) for name, donor in donors.items()})

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` returns, which calls `self.network`, for other tasks within `of`."""
        return compute()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """A context in which the network has the head of this auxiliary task."""
        self.own[_key(name)].exchange_(self.network)
        try:
            yield
        finally:
            self.own[_key(name)].exchange_(self.network)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the network: "<task>.<name in the network>" -> tensor."""
        return {_plain(key): tensor for key, tensor in self.own.state_dict().items()}

    def load(self, path: Path) -> None:
        """Takes from a file of `tensors` what fits, by name and shape; other tasks keep what they have."""
        from safetensors.torch import load_file

        saved, own = load_file(path), self.own.state_dict()
        found = {key: saved[_plain(key)] for key in own if _plain(key) in saved}
        fitting = {key: tensor for key, tensor in found.items() if tensor.shape == own[key].shape}
        self.own.load_state_dict(fitting, strict=False)


def _key(path: str) -> str:
    """A path as a name that torch takes for a module or buffer: without dots, and no attribute that modules have."""
    return "/" + path.replace(".", "/")


def _plain(key: str) -> str:
    """The key of a state dict with such names, as a path: "/sst2./top/1.weight" -> "sst2.top.1.weight"."""
    return key.replace("./", ".").removeprefix("/").replace("/", ".")
