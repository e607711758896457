"""Where a webhook may go: a URL taken apart once, and the addresses that are nobody's private ones.

What a URL says by itself is checked when a run is created; what its name leads to, at each connection, which then goes
to the checked address: a name that is looked up twice may lead elsewhere the second time.
"""

import asyncio
import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urlsplit

import msgspec

from slipstream_schemas.errors import InvalidArgument, Unavailable
from slipstream_schemas.limits import WEBHOOK_ADDRESSES_MAX, WEBHOOK_URL_CHARS_MAX

PORTS: Final = {"http": 80, "https": 443}
LOC: Final = ("body", "webhook")
PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
LOCAL_NAMES: Final = ("localhost", "localdomain", "metadata.google.internal")
PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that is assigned. What lies outside maps, translates or leads to addresses that are checked nowhere."""

NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "168.63.129.16/32",  # Azure answers its machines there: certificates, extensions, secrets of the agent
        "192.0.0.0/24",  # protocol assignments, of which Python takes some for global
        "192.88.99.0/24",  # relays of 6to4
        "3fff::/20",  # documentation, newer than Python's list
    )
)


class Target(msgspec.Struct, frozen=True):
    """A checked URL. `host` is a name, or an address without brackets; `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def is_public(address: str) -> bool:
    """Whether an address is one of the open Internet."""
    found = ipaddress.ip_address(address)
    if any(found in network for network in NOT_PUBLIC if network.version == found.version):
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            # An address with an interface is one of this machine's surroundings.
            return False
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found not in PUBLIC_V6 or found.sixtofour is not None or found.teredo is not None:
            return False
    return found.is_global and not found.is_multicast


def _literal(host: str) -> str | None:
    """The address that a host is, in any form that resolvers take for one (`127.1`, `0x7f000001`); None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except OSError:
        return None


def parse(url: str, *, allow_private: bool) -> Target:
    """Take a URL apart. Raises: InvalidArgument for one that nothing may be sent to."""
    if len(url) > WEBHOOK_URL_CHARS_MAX:
        raise InvalidArgument(f"Expected at most {WEBHOOK_URL_CHARS_MAX} characters", LOC, "too_long")
    # Parsers disagree about white space, backslashes and letters beyond ASCII.
    if PRINTABLE.fullmatch(url) is None or "\\" in url:
        raise InvalidArgument("Expected a URL of ASCII characters", LOC, "url_parsing")
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").rstrip(".")
    except ValueError as error:
        raise InvalidArgument("Expected a URL", LOC, "url_parsing") from error
    if parts.scheme not in PORTS or not host:
        raise InvalidArgument("Expected an absolute URL with http or https", LOC, "url_scheme")
    if "@" in parts.netloc:
        raise InvalidArgument("Expected a URL without a user", LOC, "url_parsing")
    address = _literal(host)
    if "[" in parts.netloc and ":" not in (address or ""):
        raise InvalidArgument("Expected an IPv6 address in brackets", LOC, "url_parsing")
    if (address is None and NAME.fullmatch(host) is None) or port == 0:
        raise InvalidArgument("Expected a host name or an address, and a port above 0", LOC, "url_parsing")
    target = Target(parts.scheme, address or host, port or PORTS[parts.scheme], _path(parts.path, parts.query))
    if not allow_private and (_is_local_name(host) if address is None else not is_public(address)):
        text = "Loopback, private, link-local and metadata addresses are refused (SLIPSTREAM_WEBHOOK_ALLOW_PRIVATE)"
        raise InvalidArgument(text, LOC, "address_refused")
    return target


def _path(path: str, query: str) -> str:
    return (path or "/") + (f"?{query}" if query else "")


def _is_local_name(host: str) -> bool:
    return any(host == name or host.endswith(f".{name}") for name in LOCAL_NAMES)


async def addresses_of(target: Target, *, allow_private: bool) -> list[str]:
    """Where the target's name leads now; all of its addresses must be allowed. Raises: InvalidArgument, Unavailable."""
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{target.host} is not found: {error.strerror}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    refused = [] if allow_private else [each for each in addresses if not is_public(each)]
    if refused:
        raise InvalidArgument(f"{target.host} leads to {refused[0]}, which is refused", LOC, "address_refused")
    return addresses[:WEBHOOK_ADDRESSES_MAX]
