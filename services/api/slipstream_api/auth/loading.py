"""The `auth` of `langgraph.json`: which handlers there are, if any."""

import logging
from pathlib import Path
from typing import Any

import msgspec

from slipstream_api.auth.handlers import Handlers
from slipstream_schemas.errors import Rejected
from slipstream_schemas.user_code import BadConfig, config_file, load_object, prepare_environment

log = logging.getLogger("slipstream.auth")


class AuthSettings(msgspec.Struct):
    """The `auth` of the file. `disable_studio_auth` and the like are about a product that is not here."""

    path: str


class _Config(msgspec.Struct):
    """What the API reads of the file."""

    auth: AuthSettings | None = None
    dependencies: list[str] = []
    env: str | dict[str, str] | None = None


def load_handlers(path: Path) -> Handlers | None:
    """The handlers that the file names, None without any. Logs which. Raises: BadConfig."""
    path = config_file(path)
    config = _read(path)
    if config is None or config.auth is None:
        where = f"no auth in {path}" if config is not None else f"there is no {path}"
        log.warning("auth: none (%s): whoever reaches this server may do everything", where)
        return None
    root = path.resolve().parent
    is_aegra = path.name == "aegra.json"
    prepare_environment(config.dependencies, ".env" if is_aegra and config.env is None else config.env, root)
    what = f"auth in {path}"
    auth: Any = load_object(what, config.auth.path, root)
    try:
        handlers = Handlers(auth)
    except Rejected as error:
        raise BadConfig(f"{what}: {error.message}") from error
    handlers.reads_text = is_aegra
    rules = "with rules" if handlers.restricts else "without rules: a caller may do everything in its tenant"
    log.info("auth: %s, %s", config.auth.path, rules)
    return handlers


def _read(path: Path) -> _Config | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Config)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError) as error:
        raise BadConfig(f"{path} is not a usable langgraph.json: {error}") from error
