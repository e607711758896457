"""The `http` of `langgraph.json`: the user's own application, CORS, headers for graphs, routes that are left out."""

import logging
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from slipstream_schemas.user_code import BadConfig, config_file, load_object, prepare_environment

log = logging.getLogger("slipstream.api")

Order = Literal["middleware_first", "auth_first"]
DISABLE: Final = "disable_"


class CorsSettings(msgspec.Struct, frozen=True):
    """`http.cors`. `allow_credentials` is off by default; Aegra's default is on where origins are named."""

    allow_origins: tuple[str, ...] = ("*",)
    allow_methods: tuple[str, ...] = ("*",)
    allow_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool | None = None
    allow_origin_regex: str | None = None
    expose_headers: tuple[str, ...] = ()
    max_age: int = 600


class HeaderPatterns(msgspec.Struct, frozen=True):
    """`http.configurable_headers`: names of headers, `*` standing for any characters. Both spellings are in use."""

    includes: list[str] = []
    excludes: list[str] = []
    include: list[str] = []
    exclude: list[str] = []


class HttpConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is acted on of `http`."""

    app: str | None = None
    cors: CorsSettings | None = None
    configurable_headers: HeaderPatterns | None = None
    middleware_order: Order | None = None
    enable_custom_route_auth: bool = False
    mount_prefix: str | None = None
    disable_assistants: bool = False
    disable_threads: bool = False
    disable_runs: bool = False
    disable_store: bool = False
    disable_meta: bool = False
    disable_mcp: bool = False
    disable_a2a: bool = False


class HttpSettings(msgspec.Struct, frozen=True):
    """`http`, with the user's application loaded."""

    config: HttpConfig = HttpConfig()
    app: Any = None

    @property
    def disabled(self) -> frozenset[str]:
        """The groups of routes that are not served (see `route_groups`)."""
        names = (field for field in HttpConfig.__struct_fields__ if field.startswith(DISABLE))
        return frozenset(name.removeprefix(DISABLE) for name in names if getattr(self.config, name))


class _File(msgspec.Struct):
    http: dict[str, Any] | None = None
    auth: Any = None
    dependencies: list[str] = []
    env: str | dict[str, str] | None = None


def load_http_settings(path: Path) -> HttpSettings:
    """The settings of a file; the user's application is imported. Without a file there are none. Raises: BadConfig."""
    path = config_file(path)
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return HttpSettings()
    except (msgspec.MsgspecError, OSError) as error:
        raise BadConfig(f"{path} is not a usable langgraph.json: {error}") from error
    config = _config(path, file)
    if config.app is None:
        return HttpSettings(config)
    root, is_aegra = path.resolve().parent, path.name == "aegra.json"
    prepare_environment(file.dependencies, ".env" if is_aegra and file.env is None else file.env, root)
    app: Any = load_object(f"http.app in {path}", config.app, root)
    if not callable(app):
        raise BadConfig(f"http.app in {path}: {config.app} is a {type(app).__name__}, not an ASGI application")
    log.info("custom routes: %s", config.app)
    return HttpSettings(config, app)


def _config(path: Path, file: _File) -> HttpConfig:
    given = file.http or {}
    try:
        config = msgspec.convert(given, HttpConfig)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{path}: `http` is not usable: {error}") from error
    if config.mount_prefix not in (None, "", "/"):
        raise BadConfig(f"{path}: `http.mount_prefix` is not supported; let a proxy in front of the server take it off")
    if config.enable_custom_route_auth and file.auth is None:
        log.warning("%s: http.enable_custom_route_auth has no effect without `auth`", path.name)
    unread = sorted(set(given) - set(HttpConfig.__struct_fields__))
    if unread:
        log.warning("%s: no effect here: %s", path.name, ", ".join(f"http.{name}" for name in unread))
    cors = config.cors
    if cors is not None and cors.allow_credentials is None and path.name == "aegra.json":
        cors = msgspec.structs.replace(cors, allow_credentials="*" not in cors.allow_origins)
    return msgspec.structs.replace(config, cors=cors)
