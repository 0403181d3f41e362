"""Keeping keys and tokens out of files and messages.

W&B and the Hugging Face hub take theirs from the environment or from files of their own; no option of ours holds one.
But one that a shell put into an option by mistake would be written to config.yaml, meta.json and the W&B record.
"""

import os
import re
from typing import Any

NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|SECRET_?KEY|PASSWORD|PASSWD)$", re.IGNORECASE)
"""Environment variables whose names end so hold secrets: WANDB_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY and so on."""

SHAPES = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b|\bwandb_v1_[A-Za-z0-9_-]{20,}|://[^/\s:@]+:[^/\s:@]+@")
"""Tokens that show by their form: of the Hugging Face hub, of W&B, and passwords in addresses."""

SHORTEST = 8  # characters; a variable such as X_TOKEN=1 is no secret, and would match everywhere


def _secrets() -> list[str]:
    values = (value for name, value in os.environ.items() if NAMES.search(name))
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)


def holds_secret(text: str) -> bool:
    """Whether a text holds the value of a secret in the environment, or something of the form of one."""
    return bool(SHAPES.search(text)) or any(secret in text for secret in _secrets())


def redacted(text: str) -> str:
    """The text with secrets replaced by ***."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return SHAPES.sub("***", text)


def check_no_secret(value: Any, path: str = "") -> None:
    """Raises ValueError, without showing it, for an option that holds a secret. value: of a config, nested or not."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_no_secret(str(key), path)
            check_no_secret(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str) and holds_secret(value):
        raise ValueError(
            f"{redacted(path) or 'an option'}: holds a key, token or password, which would end up in files; leave it "
            "in the environment, where W&B and the Hugging Face hub look for theirs"
        )
