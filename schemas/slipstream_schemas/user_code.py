"""The user's `langgraph.json`, its environment, and its modules: what the services that run user code share."""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from slipstream_schemas.errors import Rejected


class BadConfig(Rejected):
    """`langgraph.json` or what it names cannot be used; the message names the file and what to change."""


def config_file(path: Path) -> Path:
    """The file itself, or an `aegra.json` beside it, which has the same shape."""
    other = path.with_name("aegra.json")
    return other if not path.exists() and other.exists() else path


def code_folders(dependencies: Sequence[str], root: Path) -> list[Path]:
    """The folders of the user's code."""
    folders = [(root / dependency).resolve() for dependency in (".", *dependencies)]
    return [folder for folder in folders if folder.is_dir()]


def prepare_environment(dependencies: Sequence[str], env: str | dict[str, str] | None, root: Path) -> None:
    """Put the dependencies on the import path and the variables of `env` into the environment."""
    for folder in code_folders(dependencies, root):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    variables = env if isinstance(env, dict) else {}
    if isinstance(env, str) and (root / env).exists():
        for line in (root / env).read_text().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                variables[name.strip().removeprefix("export ")] = value.strip().strip("\"'")
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def load_module(reference: str, root: Path) -> ModuleType:
    """Import a module of the user's, by its file or its name. Raises: BadConfig, and what importing it raises."""
    if "/" not in reference and not reference.endswith(".py"):
        return importlib.import_module(reference)
    path = (root / reference).resolve()
    # Checkpoints name the modules of the classes that they hold: the name must be the same in every process.
    name = "slipstream_user_" + re.sub(r"\W", "_", reference.removesuffix(".py").lstrip("./"))
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise BadConfig(f"the file {path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_object(what: str, target: str, root: Path) -> Any:
    """The object that `./file.py:variable` or `module:variable` names. Raises: BadConfig, which names `what`."""
    module_name, colon, variable = target.rpartition(":")
    if not colon:
        raise BadConfig(f"{what}: {target!r} must look like ./file.py:variable or module:variable")
    try:
        return getattr(load_module(module_name, root), variable)
    except AttributeError as error:
        raise BadConfig(f"{what}: {module_name} has no {variable!r}") from error
    except BadConfig as error:
        raise BadConfig(f"{what}: {error.message}") from error
    except Exception as error:
        raise BadConfig(f"{what}: importing {module_name} failed: {type(error).__name__}: {error}") from error
