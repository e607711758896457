"""JSON-RPC 2.0 as MCP and A2A speak it over HTTP: one request, notification or response in a body."""

from typing import Any, Final

import msgspec
from litestar import Request, Response

from slipstream_api.bodies import decode, raw_body
from slipstream_api.problems import as_json
from slipstream_schemas.errors import Conflict, InvalidArgument, Rejected, SlipstreamError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

CallId = str | int | None


class Call(msgspec.Struct):
    """A request; without an id a notification; without a method a response to something that we never asked."""

    method: str | None = None
    id: CallId | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] = {}

    @property
    def wants_answer(self) -> bool:
        """Whether it is a request."""
        return self.method is not None and self.id is not msgspec.UNSET


class Failed(Rejected):
    """A call that is refused with a code of the protocol."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def read(request: Request[Any, Any, Any]) -> Call:
    """The call in a body. Raises: Failed, TooLarge."""
    try:
        plain = decode(await raw_body(request))
    except InvalidArgument as error:
        raise Failed(PARSE_ERROR, error.message) from error
    if not isinstance(plain, dict) or plain.get("jsonrpc") != "2.0":  # pyright: ignore[reportUnknownMemberType]
        raise Failed(INVALID_REQUEST, 'Expected one JSON-RPC message: an object with "jsonrpc": "2.0"')
    try:
        return msgspec.convert(plain, Call)
    except msgspec.ValidationError as error:
        raise Failed(INVALID_REQUEST, str(error)) from error


def params_of(call: Call, kind: Any) -> Any:
    """The parameters as `kind`. Raises: Failed."""
    try:
        return msgspec.convert(call.params, kind)
    except msgspec.ValidationError as error:
        raise Failed(INVALID_PARAMS, str(error)) from error


def result(call: Call, value: object) -> dict[str, Any]:
    """The answer to a call."""
    return {"jsonrpc": "2.0", "id": call.id, "result": value}


def failure(call_id: CallId | msgspec.UnsetType, error: SlipstreamError) -> dict[str, Any]:
    """The answer to a call that was refused."""
    code = (
        error.code if isinstance(error, Failed) else INTERNAL_ERROR if isinstance(error, Conflict) else INVALID_PARAMS
    )
    shown = None if call_id is msgspec.UNSET else call_id
    return {"jsonrpc": "2.0", "id": shown, "error": {"code": code, "message": error.message}}


def refused(error: SlipstreamError, call: Call | None = None) -> Response[bytes]:
    """The answer to what is no call (400), or to a call that cannot be done (200)."""
    return as_json(failure(call.id if call else None, error), 200 if call else 400)
