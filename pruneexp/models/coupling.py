"""The channels of a network that must be removed together, also where torch-pruning alone cannot see them.

torch-pruning (Fang et al. 2023, "DepGraph", arXiv:2301.12900) follows gradients and takes a padding of channels for an
element-wise operation, so it would pair channel c before an option-A shortcut with channel c after it. The right
partner is the channel that the shortcut copies c to.
"""

from typing import Any

from torch import nn

from pruneexp.models.cifar_resnet import ZeroPadShortcut


def dependency_graph(network: nn.Module, example: Any) -> Any:
    """A `torch_pruning.DependencyGraph` of the network, in eval mode. example: inputs that the network takes."""
    import torch_pruning
    from torch_pruning.dependency import Dependency

    class ShortcutPruner(torch_pruning.BasePruningFunc):
        """How torch-pruning takes channels away from a shortcut and learns how many there are."""

        def prune_in_channels(self, layer: ZeroPadShortcut, idxs: list[int]) -> nn.Module:
            layer.remove_inputs(idxs)
            return layer

        def prune_out_channels(self, layer: ZeroPadShortcut, idxs: list[int]) -> nn.Module:
            layer.remove_outputs(idxs)
            return layer

        def get_in_channels(self, layer: ZeroPadShortcut) -> int:
            return layer.in_channels

        def get_out_channels(self, layer: ZeroPadShortcut) -> int:
            return layer.out_channels

    pruner = ShortcutPruner()
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(network, example, customized_pruners={ZeroPadShortcut: pruner})
    for module, node in graph.module2node.items():
        if isinstance(module, ZeroPadShortcut):
            down = Dependency(pruner.prune_in_channels, pruner.prune_out_channels, node, node)
            up = Dependency(pruner.prune_out_channels, pruner.prune_in_channels, node, node)
            down.index_mapping[0] = _Follow(module, down=True)
            up.index_mapping[0] = _Follow(module, down=False)
            node.dependencies += [down, up]
    return graph


class _Follow:
    """Maps torch-pruning's indices of a shortcut's inputs to its outputs (down), or back; zeros lead nowhere."""

    def __init__(self, shortcut: ZeroPadShortcut, *, down: bool) -> None:
        self.shortcut, self.down = shortcut, down

    def __call__(self, indices: list[Any]) -> list[Any]:
        pairs = [(source, target) for target, source in enumerate(self.shortcut.sources()) if source >= 0]
        partner = dict(pairs) if self.down else {target: source for source, target in pairs}
        return [index._replace(idx=partner[index.idx]) for index in indices if index.idx in partner]
