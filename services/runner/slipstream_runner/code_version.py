"""A name for the code that a runner has loaded, the same in every process that has loaded the same."""

import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("langgraph", "langchain-core")
FOREIGN = frozenset({"site-packages", "dist-packages"})


def _sources(folders: Sequence[Path]) -> dict[str, Path]:
    """The files of the loaded modules that lie in one of the folders, by their name in it."""
    found: dict[str, Path] = {}
    for module in list(sys.modules.values()):
        # Not by attribute: a module may compute its attributes, and not all that lies here is a module.
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str):
            continue
        path = Path(file)
        folder = next((each for each in folders if path.is_relative_to(each)), None)
        if folder is not None and not FOREIGN & set(path.relative_to(folder).parts) and path.is_file():
            found[str(path.relative_to(folder))] = path
    return found


def code_version(config: bytes, folders: Sequence[Path]) -> str:
    """A hash of the config, of every module loaded from the folders, and of the libraries that draw graphs."""
    digest = hashlib.sha256(config)
    for name, path in sorted(_sources(folders).items()):
        digest.update(f"\0{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for library in LIBRARIES:
        digest.update(f"\0{library}=={version(library)}".encode())
    return digest.hexdigest()[:32]
