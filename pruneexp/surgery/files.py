"""A shrunk network as files: weights, structure, and for a transformer its configuration. Nothing is pickled.

    model.safetensors  structure.json  config.json (transformers only)

`transformers.AutoModel...from_pretrained` cannot read such a folder: config.json has one number of heads and one
feed-forward width for all layers, and no place for those of each. It logs a table of keys with status MISMATCH and ends
in "RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error. For details look at the above
report!" (transformers 5.23). Do not follow that hint: with `ignore_mismatched_sizes=True` it loads, with random weights
in every layer that was shrunk; and where whole sub-layers went and nothing else, it does so without any error.
`pruneexp.load(folder)` reads it.
"""

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn

from pruneexp.models.checkpoints import few, load_weights
from pruneexp.models.errors import first_line
from pruneexp.surgery.structure import restructure_, structure
from pruneexp.surgery.verify import SurgeryError
from pruneexp.tensor_files import save_tensors

WEIGHTS, STRUCTURE, CONFIG = "model.safetensors", "structure.json", "config.json"


def save_shrunk(network: nn.Module, folder: str | Path) -> None:
    """Writes a network into a folder, which is made if it is not there. Save a tokenizer there beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(network.state_dict(), folder / WEIGHTS)
    (folder / STRUCTURE).write_text(json.dumps(structure(network), indent=1) + "\n")
    if hasattr(network, "config") and hasattr(network.config, "save_pretrained"):
        config = copy.deepcopy(network.config)
        config.architectures = [type(network).__name__]
        config.save_pretrained(folder)


def is_shrunk_transformer(folder: Path) -> bool:
    """Whether the folder has the files of a transformer that `save_shrunk` wrote."""
    return all((folder / name).is_file() for name in (WEIGHTS, STRUCTURE, CONFIG))


def load_transformer(folder: Path) -> nn.Module:
    """The transformer in such a folder, in eval mode on the CPU.

    Raises:
        SurgeryError: the files are damaged or do not belong together.
        ValueError: the weights cannot be read.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        network = getattr(transformers, config.architectures[0])(config)
    except Exception as error:  # whatever transformers makes of a damaged file
        raise SurgeryError(f"{folder / CONFIG}: cannot be used ({first_line(error)}); export the run again") from error
    return load_shrunk(network, folder).eval()


def load_shrunk(network: nn.Module, folder: Path) -> nn.Module:
    """A freshly built network brought into the structure in a folder, with the weights there, all of them.

    The result is `network` itself, changed in place, or for an export of `pruneexp.surgery.own_channels` another one.

    Raises:
        SurgeryError: the structure is damaged or belongs to another network, or weights are missing or left over.
        ValueError: the weights cannot be read.
    """
    written = read_structure(folder / STRUCTURE)
    if "channels" in written:
        from pruneexp.surgery.own_channels import load_own_channels

        return load_own_channels(network, folder, written)
    restructure_(network, written)
    loaded = load_weights(network, folder / WEIGHTS, key="folder")
    if wrong := loaded.missing + loaded.unexpected:
        raise SurgeryError(f"{folder}: {WEIGHTS} and {STRUCTURE} differ in {len(wrong)} tensors: {few(wrong)}")
    return network


def read_structure(path: Path) -> dict[str, Any]:
    """The content of a structure file. Raises SurgeryError if it is no JSON object."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SurgeryError(f"{path}: is damaged ({first_line(error)}); export the run again") from error
