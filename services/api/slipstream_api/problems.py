"""The one place where errors become HTTP statuses."""

import logging
import re
from typing import Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from slipstream_api.auth.denied import Denied
from slipstream_nats.cursor import CursorLost
from slipstream_schemas import errors
from slipstream_schemas.channels import UnsupportedChannels
from slipstream_schemas.codec import dumps
from slipstream_schemas.limits import RETRY_AFTER_S

log = logging.getLogger("slipstream.api")

STATUS: tuple[tuple[type[errors.SlipstreamError], int], ...] = (
    (UnsupportedChannels, 400),
    (errors.InvalidArgument, 422),
    (CursorLost, 422),
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.Rejected, 400),
    (errors.Forbidden, 403),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
    (errors.TooMany, 429),
    (errors.TooSlow, 408),
    (errors.Corrupt, 500),
)
_PATH = re.compile(r" - at `([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")


def as_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A JSON answer, encoded the way of the wire."""
    return Response(dumps(value), status_code=status, headers=headers, media_type=MediaType.JSON)


def invalid(error: msgspec.ValidationError) -> errors.InvalidArgument:
    """Where a body is wrong, from msgspec's message (`… - at `$.a[0].b``)."""
    text = str(error)
    found = _PATH.search(text)
    loc: list[str | int] = ["body"]
    for part in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", found[1] if found else ""):
        loc.append(part[0] or (int(part[1]) if part[1].isdigit() else part[1]))
    missing = _MISSING.search(text)
    if missing:
        return errors.InvalidArgument("Field required", (*loc, missing[1]), "missing")
    return errors.InvalidArgument(_PATH.sub("", text), loc, "type_error")


def details(error: errors.SlipstreamError) -> list[dict[str, Any]]:
    """The `detail` of a 422."""
    if isinstance(error, CursorLost):
        found = {"earliest_seq": error.gap.earliest_seq, "last_seq": error.gap.last_seq}
        return [{"loc": ["body", "since"], "msg": error.message, "type": "cursor_lost", "ctx": found}]
    if isinstance(error, errors.InvalidArgument):
        return [{"loc": list(error.loc), "msg": error.message, "type": error.kind}]
    return [{"loc": ["body"], "msg": error.message, "type": "value_error"}]


def on_slipstream_error(request: Request[Any, Any, Any], error: errors.SlipstreamError) -> Response[bytes]:
    """Answer for an error that was raised on purpose."""
    if isinstance(error, Denied):
        return as_json({"detail": error.message}, error.status, error.headers)
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    if status == 422:
        return as_json({"detail": details(error)}, 422)
    if isinstance(error, errors.Unavailable):
        log.warning("%s %s: %s", request.method, request.url.path, error.message)
        return as_json({"detail": error.shown}, 503, {"Retry-After": str(error.retry_after_s)})
    if status == 429:
        return as_json({"detail": error.message}, 429, {"Retry-After": str(RETRY_AFTER_S)})
    if status == 500:
        log.error("%s %s: %s", request.method, request.url.path, error.message)
        return as_json({"detail": "The log holds something that cannot be read. The server's log says what."}, 500)
    return as_json({"detail": error.message}, status)


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer for the framework's own errors (404, 405, 413)."""
    return as_json({"detail": error.detail or "Error"}, error.status_code, dict(error.headers or {}))


def on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer for a bug: the log has the trace, the wire does not."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return as_json({"detail": "Internal error. The server's log says what happened."}, 500)
