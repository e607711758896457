"""Deliveries against receivers and resolvers that want to lead them elsewhere."""

import asyncio
import socket
from typing import Any, Final

import pytest

from slipstream_api import webhook_post, webhook_urls
from slipstream_schemas.errors import InvalidArgument, Unavailable
from testkit.receiver import Receiver

PUBLIC: Final = "203.0.114.1"
"""An address that is public to every check, and that the test's resolver alone gives out."""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_nowhere(status: int) -> None:
    async with Receiver() as inner, Receiver((status,), extra=f"location: {inner.url}\r\n") as outer:
        client = webhook_post.new_client()
        with pytest.raises(Unavailable, match=f"answered {status}"):
            await webhook_post.post(client, outer.url, {}, b"{}", allow_private=True)
        await client.aclose()
        assert (len(outer.deliveries), len(inner.deliveries)) == (1, 0)


def test_a_name_is_looked_up_once_and_never_by_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer would lead inside."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        asked.append(name)
        names = [each for each in asked if each == "rebind.example.com"]
        leads = PUBLIC if len(names) == 1 else "127.0.0.1"
        return resolve(leads if name == "rebind.example.com" else name, port, *args, **kwargs)

    async def deliver() -> int:
        async with Receiver() as inside:
            client = webhook_post.new_client()
            target = webhook_urls.parse(f"http://rebind.example.com:{inside.port}/", allow_private=False)
            addresses = await webhook_urls.addresses_of(target, allow_private=False)
            assert addresses == [PUBLIC]
            monkeypatch.setattr(webhook_post, "WEBHOOK_DEADLINE_S", 0.5)
            url = f"http://rebind.example.com:{inside.port}/"
            asked.clear()
            with pytest.raises(Unavailable):
                await webhook_post.post(client, url, {}, b"{}", allow_private=False)
            await client.aclose()
            return len(inside.deliveries)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    # The stock loop resolves with `socket.getaddrinfo`; uvloop asks the C library.
    assert asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(deliver()) == 0
    assert asked.count("rebind.example.com") == 1


@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "fe80::1"])
def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch, private: str) -> None:
    def both(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        family = socket.AF_INET6 if ":" in private else socket.AF_INET
        mine = (private, port, 0, 0) if ":" in private else (private, port)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port)), (family, socket.SOCK_STREAM, 6, "", mine)
        ]  # fmt: skip

    async def look_up() -> list[str]:
        target = webhook_urls.parse("http://two.example.com/", allow_private=False)
        return await webhook_urls.addresses_of(target, allow_private=False)

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(InvalidArgument, match="which is refused"):
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(look_up())
