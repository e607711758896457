"""The agency's own page and prices, beside the API and for customers alone. Plain ASGI: nothing need be installed.

A FastAPI application, which Aegra insists on, is served in the same way.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fares import FARES

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Serve `/` and `/fares`."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    pages = {"/": {"agency": "open", "customer": scope["user"].display_name}, "/fares": FARES}
    found = pages.get(scope["path"])
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(found or {"error": "no such page"}).encode()})
