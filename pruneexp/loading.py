"""The model of a finished run, or of an export, from its folder."""

from collections.abc import Collection
from pathlib import Path

import yaml
from torch import nn

from pruneexp.building import build, check_targets
from pruneexp.checksums import check_config, check_files, read_config
from pruneexp.config import finished_summary
from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.checkpoints import load_weights
from pruneexp.summaries import Summary
from pruneexp.surgery.files import STRUCTURE, is_shrunk_transformer, load_shrunk, load_transformer

REMOTE_CODE = "remote_code"  # stands for the Python files of a hub's model in what a user trusts


PROCESSOR = "processor"  # folder in a run's folder with what reads its texts: tokenizer, and config of a hub's model


def load(folder: str | Path, *, trust: Collection[str] = ()) -> nn.Module:
    """The trained model of a finished run, or the smaller one that `prune-export` made of it; in eval mode on the CPU.

    folder: of a run; of an export; or any with the files that `pruneexp.surgery.files.save_shrunk` writes of a
    transformer, which transformers' own `from_pretrained` cannot read (that module says why). trust: the names of
    classes outside pruneexp that its config.yaml may build, and "remote_code" where Python files that came with a model
    of the Hugging Face hub may run; both run with your rights.

    Raises:
        ValueError: there is no model in the folder, its files are damaged, or it asks for more trust than it has.
    """
    folder = Path(folder)
    if is_shrunk_transformer(folder):
        return load_transformer(folder)
    recipe, info = recipe_of(folder, trust=trust)
    model = recipe.network(info, pretrained=False)
    check_files(folder, _summary_of(folder), "model.safetensors")
    if (folder / STRUCTURE).is_file():
        model = load_shrunk(model, folder)
    else:
        load_weights(model, folder / "model.safetensors", key="folder")
    return model.eval()


def recipe_of(folder: Path, *, trust: Collection[str] = (), edited: bool = False) -> tuple[Model, DataInfo]:
    """The recipe of the model in the folder of a run or of an export, and the form of the data it was made for.

    trust: as in `load`. edited: go by config.yaml also if it was edited after the run.

    Raises:
        ValueError: the folder is neither, or its files are damaged, edited or not to be trusted.
    """
    summary = _summary_of(folder)
    try:
        config = read_config(folder)
        listed = {key: tuple(value) if isinstance(value, list) else value for key, value in summary["info"].items()}
        node = {**config["model"], "checkpoint": None}
        info = DataInfo(**listed)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder}: summary.json or config.yaml is damaged ({reason}); run it again") from error
    if not edited:
        check_config(folder, summary, config)
    check_targets(node, "model", folder / "config.yaml", trust)
    if node.get("trust_remote_code") and REMOTE_CODE not in trust:
        raise ValueError(
            f"{folder / 'config.yaml'}: model.trust_remote_code=true would run Python files that came with the model, "
            f"with your rights; where you trust them, say so: prune-export --trust {REMOTE_CODE}, "
            f'pruneexp.load(folder, trust=["{REMOTE_CODE}"])'
        )
    if (folder / PROCESSOR).is_dir():
        node["name_or_path" if "name_or_path" in node else "tokenizer"] = str(folder / PROCESSOR)
    return build(node, "model"), info


def _summary_of(folder: Path) -> Summary:
    """The summary of a run, or what an export says of itself. Raises ValueError if the folder holds neither."""
    summary = finished_summary(folder) or finished_summary(folder, "export.json")
    if summary is None:
        raise ValueError(f"{folder}: no finished run (it has no summary.json); give the folder of one")
    return summary
