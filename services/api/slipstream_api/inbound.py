"""Headers of a request that graphs may read: `http.configurable_headers` puts them into `config.configurable`.

What a header says stands above the body: a proxy in front of the server sets headers, and its clients write bodies.
"""

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from litestar.types import ASGIApp, Receive, Scope, Send

from slipstream_api.http_settings import HeaderPatterns

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key", "x-service-key"})
"""What goes into a config goes into the log: a pattern with `*` takes none of these, its own name does."""
_chosen: ContextVar[Mapping[str, str]] = ContextVar("configurable_headers", default=NOTHING)


def with_headers(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config, the chosen headers of its request added."""
    found = _chosen.get()
    return {**config, "configurable": {**(config.get("configurable") or {}), **found}} if found else config


class HeaderChoice:
    """Which headers go in. A name that is excluded does not, whatever includes it."""

    def __init__(self, patterns: HeaderPatterns) -> None:
        includes = [each.lower() for each in (*patterns.includes, *patterns.include)]
        self._names = frozenset(each for each in includes if "*" not in each)
        self._includes = _any_of(each for each in includes if "*" in each)
        self._excludes = _any_of(each.lower() for each in (*patterns.excludes, *patterns.exclude))

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """The chosen headers; one that is there twice is joined as HTTP says."""
        found: dict[str, str] = {}
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if self._takes(name):
                found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    def _takes(self, name: str) -> bool:
        if self._excludes.fullmatch(name):
            return False
        return name in self._names or (name not in CREDENTIALS and bool(self._includes.fullmatch(name)))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(each).replace(r"\*", ".*") for each in patterns)
    return re.compile(alternatives or r"(?!)")


class Inbound:
    """The application, with each request's chosen headers at hand."""

    def __init__(self, app: ASGIApp, choice: HeaderChoice) -> None:
        self._app, self._choice = app, choice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a socket."""
        token = _chosen.set(self._choice.of(scope.get("headers", ())))
        try:
            await self._app(scope, receive, send)
        finally:
            _chosen.reset(token)
