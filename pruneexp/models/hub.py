"""Models and tokenizers by folder or name on the Hugging Face hub: quietly, and failing at once without a network."""

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pruneexp.models.errors import first_line

logger = logging.getLogger("pruneexp")

PROBE_SECONDS = 5.0
"""How long the hub may take to answer before it counts as unreachable."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
"""A folder with one of these has a vocabulary; without one transformers would make a tokenizer that knows no word."""


@functools.cache
def reachable() -> bool:
    """Whether the hub answers; asked once a process. Its client would otherwise retry for half a minute a file."""
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # of whichever http client is installed
        logger.info("the Hugging Face hub does not answer (%s): only files downloaded before", first_line(error))
        return False
    return True


@contextmanager
def quiet_hub(*, online: bool) -> Iterator[None]:
    """While it lasts, transformers and the hub's client print nothing; without `online` they use the cache only."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    offline, verbosity = constants.HF_HUB_OFFLINE, transformers_logging.get_verbosity()
    bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    constants.HF_HUB_OFFLINE = offline or not (online and reachable())
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        (enable_progress_bars if hub_bars else disable_progress_bars)()


def local_tokenizer(path: str) -> str:
    """A tokenizer's folder, or its name on the hub. Raises ValueError for a folder that is not there."""
    return local_or_name("model.tokenizer", path, TOKENIZER_FILES)


def load_tokenizer(key: str, path: str, vocab_size: int, *, trust_remote_code: bool = False) -> Any:
    """A tokenizer from a folder or the hub, for a model that knows `vocab_size` tokens. key: of the config, for errors.

    Raises:
        ValueError: it cannot be loaded, or has more tokens.
    """
    from transformers import AutoTokenizer

    local_or_name(key, path, TOKENIZER_FILES)
    try:
        with quiet_hub(online=not Path(path).is_dir()):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # of transformers, the hub's client or the tokenizer's own code
        raise ValueError(failure(key, path, error)) from error
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"{key}={path}: {len(tokenizer)} tokens, but the model knows {vocab_size}; give the model's tokenizer"
        )
    return tokenizer


def local_or_name(key: str, path: str, needed: Sequence[str]) -> str:
    """The folder, without ~, or the name on the hub. Raises ValueError for a folder that has none of `needed`."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in needed):
            raise ValueError(
                f"{key}={path}: no {needed[0]} in that folder; give one that save_pretrained or the hub made"
            )
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:  # names on the hub are owner/name or name
        raise ValueError(
            f"{key}={path}: no folder there; give a folder with {needed[0]}, or a name on the Hugging Face hub"
        )
    return path


def failure(key: str, path: str, error: Exception) -> str:
    """One line about a model that could not be had."""
    if "trust_remote_code" in str(error):
        return (
            f"{key}={path}: comes with Python code of its own, which would run with your rights; read it, and where "
            "you trust it set model.trust_remote_code=true"
        )
    if "weights_only" in str(error):
        return (
            f"{key}={path}: its weights hold Python objects, which can run code, and were not opened; where you trust "
            "them, convert them to .safetensors"
        )
    if Path(path).is_dir():
        return (
            f"{key}={path}: cannot be loaded ({first_line(error)}); give a folder that save_pretrained or the hub made"
        )
    return (
        f"{key}={path}: cannot be had from the Hugging Face hub ({first_line(error)}); where there is no network, "
        "download the repository elsewhere and give its folder"
    )
