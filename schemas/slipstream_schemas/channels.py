"""Channels and namespaces: which lines a v2 stream carries.

The rules are those of the stock SDKs' own matcher: a namespace filter is a prefix, a segment is compared without its
`:suffix` unless the filter's segment has one, `depth` counts segments below the prefix, `[[]]` is the root. No prefixes
at all stand for every namespace.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from slipstream_schemas import lines
from slipstream_schemas.errors import Rejected
from slipstream_schemas.limits import CHANNELS_MAX, NAMESPACE_SEGMENTS_MAX, NAMESPACES_MAX

CHANNELS: Final = ("values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom")
_CHANNEL_OF_METHOD: Final = {"input.requested": "input", "input.responded": "input"}


class UnsupportedChannels(Rejected):
    """The request names channels that do not exist."""


def channel_of(method: str) -> str:
    """The channel that carries a method."""
    return _CHANNEL_OF_METHOD.get(method, method)


def parse_channels(values: Sequence[str]) -> frozenset[str]:
    """Check requested channels. Raises: UnsupportedChannels."""
    if not values:
        raise UnsupportedChannels("channels must name at least one channel")
    if len(values) > CHANNELS_MAX:
        raise UnsupportedChannels(f"channels must name at most {CHANNELS_MAX} channels")
    bad = [v for v in values if v not in CHANNELS and not (v.startswith("custom:") and len(v) > len("custom:"))]
    if bad:
        allowed = ", ".join((*CHANNELS, "custom:<name>"))
        raise UnsupportedChannels(f"channels contains unsupported entries: {', '.join(bad)}. Allowed: {allowed}")
    return frozenset(values)


def _segment_matches(wanted: str, segment: str) -> bool:
    return segment == wanted or (":" not in wanted and segment.split(":", 1)[0] == wanted)


def namespace_matches(wanted: tuple[str, ...], namespace: tuple[str, ...], depth: int | None) -> bool:
    """Whether `namespace` lies under the prefix `wanted`, at most `depth` segments below it."""
    if len(namespace) < len(wanted) or (depth is not None and len(namespace) - len(wanted) > depth):
        return False
    return all(_segment_matches(w, s) for w, s in zip(wanted, namespace, strict=False))


class ChannelFilter:
    """Decides for each line whether a stream carries it, by its prefix, remembered for each prefix seen."""

    def __init__(
        self, channels: frozenset[str], namespaces: Sequence[tuple[str, ...]] | None = None, depth: int | None = None
    ) -> None:
        if namespaces is not None and len(namespaces) > NAMESPACES_MAX:
            raise Rejected(f"namespaces must name at most {NAMESPACES_MAX} prefixes")
        if any(len(n) > NAMESPACE_SEGMENTS_MAX for n in namespaces or ()):
            raise Rejected(f"a namespace has at most {NAMESPACE_SEGMENTS_MAX} segments")
        self.channels = channels
        self.namespaces = tuple(namespaces or ()) or None
        self.depth = depth
        self.key = (channels, self.namespaces, depth)
        """Equal for filters that choose the same."""
        names = [dumped[7:] for dumped in sorted(channels) if dumped.startswith("custom:")]
        # Custom data begins with its name, so a named channel is a comparison of bytes.
        self._custom_heads = tuple(b'{"name":%b,' % msgspec.json.encode(name) for name in names)
        self._verdicts: dict[bytes, bool | None] = {}

    def matches(self, line: bytes) -> bool:
        """Whether the stream carries the line."""
        found = lines.prefix(line)
        verdict = self._verdicts.get(found, ...)
        if verdict is ...:
            verdict = self._verdicts[found] = self._judge(lines.decode_prefix(found))
        if verdict is None:
            return line.startswith(self._custom_heads, len(found) + len(b',"data":'))
        return bool(verdict)

    def _judge(self, found: lines.Prefix) -> bool | None:
        """True, False, or None when the name of a custom event decides."""
        if found.kind != lines.EVENT or not self._namespace_matches(found.namespace):
            return False
        if found.method.startswith("custom:"):
            return found.method in self.channels or "custom" in self.channels
        if channel_of(found.method) in self.channels:
            return True
        return None if found.method == "custom" and self._custom_heads else False

    def _namespace_matches(self, namespace: tuple[str, ...]) -> bool:
        if self.namespaces is None:
            return self.depth is None or len(namespace) <= self.depth
        return any(namespace_matches(wanted, namespace, self.depth) for wanted in self.namespaces)
