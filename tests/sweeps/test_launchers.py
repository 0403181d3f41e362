"""Hydra's launchers with our configs."""

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from pruneexp.cli import CONFIGS
from pruneexp.sweeps.launchers import kind_of


def launcher(choice):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose("run", [f"hydra/launcher={choice}"], return_hydra_config=True).hydra.launcher


def test_the_example_for_slurm_composes_with_the_submitit_launcher():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    node = launcher("slurm")
    assert node._target_.endswith("SlurmLauncher")
    assert (node.gpus_per_node, node.max_num_timeout, node.tasks_per_node) == (1, 10, 1)
    assert set(node) == set(launcher("submitit_slurm"))  # no option that the launcher does not know


@pytest.mark.parametrize(
    ("choice", "kind"),
    [("basic", "here"), ("joblib", "processes"), ("slurm", "cluster"), ("submitit_local", "cluster")],
)
def test_where_launchers_run_jobs(choice, kind):
    if choice != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    name = launcher(choice)._target_.rpartition(".")[2]
    assert kind_of(type(name, (), {})()) == kind
