"""Real English text that comes with Python: the docstrings of its standard library.

The question is what a docstring is about: `label=chapter` asks for one of six fields, which follow the chapters of the
Library Reference; `label=module` for one of the modules that have at least 50 docstrings. The two go together as target
and auxiliary task. Texts are read from the imported modules, put on one line, and kept if they have five words or more
and a single label. They differ a little from one Python version or platform to the next, so compare numbers only within
one installation. With CPython 3.11 on Linux (bag of words: TF-IDF and logistic regression, trained on train, tested on
test):

    label    texts  classes  most frequent class  bag of words
    chapter   3572        6                27.2 %        84.0 %
    module    2772       26                10.1 %        77.9 %
"""

import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pruneexp.datasets.base import DataInfo
from pruneexp.datasets.labels import class_labels
from pruneexp.datasets.text import TextDataset, Texts

_CHAPTERS = {
    "numbers": "numbers math cmath decimal fractions random statistics datetime calendar",
    "files": "pathlib tempfile glob fnmatch linecache shutil filecmp fileinput zlib gzip bz2 lzma zipfile tarfile",
    "concurrency": "threading multiprocessing concurrent.futures subprocess sched queue asyncio selectors",
    "internet": "email mailbox urllib http ftplib poplib imaplib smtplib socketserver xmlrpc ipaddress wsgiref html",
    "testing": "unittest doctest bdb pdb timeit trace tracemalloc cProfile pstats logging",
    "language": "ast inspect importlib pkgutil dis tokenize symtable typing types traceback codeop pydoc",
}
_WORDS = 5  # the fewest in a text
_MODULE_TEXTS = 50  # the fewest of a module, for label=module


class TextEmbedded(TextDataset):
    """Docstrings of the standard library. They need no file and no network."""

    def __init__(self, *, label: str, **common: Any) -> None:
        """common: the options of `TextDataset`."""
        if label not in ("chapter", "module"):
            raise ValueError(f"dataset.label={label}: give chapter or module")
        super().__init__(**common)
        self.label = label

    def check(self) -> None:
        """Raises ValueError if Python runs without docstrings."""
        if inspect.__doc__ is None:
            raise ValueError(
                "dataset=text_embedded: python -OO strips the docstrings that it consists of; run without -OO"
            )

    def read(self) -> tuple[dict[str, Texts], DataInfo]:
        """One source; see the base class."""
        rows = sorted(_by_chapter().items()) if self.label == "chapter" else sorted(_by_module().items())
        labels, names = class_labels({"train": [label for _, label in rows]})
        info = DataInfo(kind=self.kind, num_outputs=len(names), metrics=("accuracy", "macro_f1"), class_names=names)
        return {"train": Texts([text for text, _ in rows], None, labels["train"])}, info


def _by_chapter() -> dict[str, str]:
    pairs = [
        (text, chapter) for chapter, modules in _CHAPTERS.items() for name in modules.split() for text in _texts(name)
    ]
    return _unambiguous(pairs)


def _by_module() -> dict[str, str]:
    pairs = [(text, name) for modules in _CHAPTERS.values() for name in modules.split() for text in _texts(name)]
    labels = _unambiguous(pairs)
    texts = Counter(labels.values())
    return {text: name for text, name in labels.items() if texts[name] >= _MODULE_TEXTS}


def _unambiguous(pairs: list[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, set[str]] = {}
    for text, label in pairs:
        labels.setdefault(text, set()).add(label)
    return {text: min(found) for text, found in labels.items() if len(found) == 1}


def _texts(name: str) -> Iterator[str]:
    """The docstrings of everything that is defined in a module or package."""
    for module in _modules(name):
        home = (module.__name__, f"_{module.__name__}")  # extension modules carry an underscore
        for member in vars(module).values():
            if getattr(member, "__module__", None) not in home:
                continue  # imported from elsewhere
            own = list(vars(member).values()) if inspect.isclass(member) else []
            for part in [member, *(part for part in own if _module_of(part) in (None, *home))]:
                documented = inspect.isclass(part) or inspect.isroutine(part) or isinstance(part, property)
                if documented and isinstance(part.__doc__, str) and len(part.__doc__.split()) >= _WORDS:
                    yield " ".join(part.__doc__.split())


def _module_of(part: object) -> str | None:
    """Where a class's attribute was defined; other libraries add methods to the standard library's classes."""
    return getattr(part.fget if isinstance(part, property) else part, "__module__", None)


def _modules(name: str) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except ImportError:  # for another platform, or left out of this Python
        return
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if found.name != "__main__":
            yield from _modules(f"{name}.{found.name}")
