"""The headers that `authenticate` handlers see, in the form that either of two servers gives them.

langgraph-api has a dict of bytes, Aegra one of text. A handler looks a header up in the form that its author knows, so
both forms are answered, text in any case; which one is listed depends on whose file names the handler.
"""

from collections.abc import Iterable
from typing import Any, cast


class Headers(dict[Any, Any]):
    """Headers by lower-case name: bytes to bytes, or text to text. Asked for in the other form, they answer in it."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]], *, as_text: bool) -> None:
        super().__init__((_text(name), _text(value)) if as_text else (name, value) for name, value in raw)
        self._as_text = as_text

    def get(self, key: Any, default: Any = None, /) -> Any:
        """The header, or the default."""
        if isinstance(key, str):
            found = super().get(key.lower() if self._as_text else _bytes(key.lower()))
            return default if found is None else found if self._as_text else _text(found)
        if isinstance(key, bytes) and self._as_text:
            found = super().get(_text(key))
            return default if found is None else _bytes(cast("str", found))
        return super().get(key, default)

    def __getitem__(self, key: Any) -> Any:
        """The header. Raises: KeyError."""
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        """Whether there is such a header."""
        return self.get(key) is not None


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1", "replace")
