"""One try to deliver: a signed POST to a checked address, whose answer is its status alone.

The headers are those of Standard Webhooks, so that receivers check them with a library: `webhook-id` (the same for each
try), `webhook-timestamp` (Unix seconds) and `webhook-signature`, which is `v1,` and the base64 of the HMAC-SHA256 of
`<id>.<timestamp>.<body>`. Source: standardwebhooks.com.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from slipstream_api import webhook_urls
from slipstream_schemas.errors import Rejected, Unavailable
from slipstream_schemas.limits import WEBHOOK_CONNECT_DEADLINE_S, WEBHOOK_DEADLINE_S, WEBHOOKS_AT_ONCE

if TYPE_CHECKING:
    import httpx

SECRET_PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """The key of a secret: the bytes behind `whsec_`, base64, or else its own. Raises: Rejected."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise Rejected(f"SLIPSTREAM_WEBHOOK_SECRET: expected base64 behind {SECRET_PREFIX}") from error


def headers_of(key: bytes, delivery_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery; without a key it is not signed."""
    out = {
        "content-type": "application/json",
        "user-agent": "slipstream",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp_s),
    }
    if key:
        signed = hmac.new(key, f"{delivery_id}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
        out["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
    return out


def new_client() -> "httpx.AsyncClient":
    """A client that follows nothing, asks no proxy, and uses no connection again: each goes to a checked address."""
    import httpx

    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(WEBHOOK_DEADLINE_S, connect=WEBHOOK_CONNECT_DEADLINE_S),
        limits=httpx.Limits(max_connections=WEBHOOKS_AT_ONCE, max_keepalive_connections=0),
    )


async def post(
    client: "httpx.AsyncClient", url: str, headers: dict[str, str], body: bytes, *, allow_private: bool
) -> None:
    """Deliver once. Raises: InvalidArgument (refused address), Unavailable (no answer, or one that is not 2xx)."""
    target = webhook_urls.parse(url, allow_private=allow_private)
    try:
        async with asyncio.timeout(WEBHOOK_DEADLINE_S):
            addresses = await webhook_urls.addresses_of(target, allow_private=allow_private)
            status = await _first_answer(client, target, addresses, headers, body)
    except TimeoutError as error:
        raise Unavailable(f"no answer within {WEBHOOK_DEADLINE_S:.0f} s") from error
    if not 200 <= status < 300:
        raise Unavailable(f"answered {status}")


async def _first_answer(
    client: "httpx.AsyncClient", target: webhook_urls.Target, addresses: list[str], headers: dict[str, str], body: bytes
) -> int:
    """The status from the first address that can be connected to. Raises: Unavailable."""
    import httpx

    failure = "no address"
    for address in addresses:
        url = httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode())
        named = {**headers, "host": target.authority}
        try:
            # The certificate must be that of the name; the answer's body is left unread, and the connection is closed.
            async with client.stream(
                "POST", url, headers=named, content=body, extensions={"sni_hostname": target.host}
            ) as answer:
                return answer.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = str(error) or type(error).__name__
        except httpx.HTTPError as error:
            raise Unavailable(str(error) or type(error).__name__) from error
    raise Unavailable(failure)
