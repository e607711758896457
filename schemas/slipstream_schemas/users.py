"""Who a request comes from, as the user's auth handlers and graphs see it."""

from typing import Any


class User(dict[str, Any]):
    """A user's fields, by key and by attribute. `identity` is always there."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def display_name(self) -> str:
        """The identity unless the handler gave one."""
        return str(self.get("display_name", self["identity"]))

    @property
    def is_authenticated(self) -> bool:
        """True unless the handler said otherwise."""
        return bool(self.get("is_authenticated", True))

    @property
    def permissions(self) -> list[str]:
        """None unless the handler gave some."""
        return list(self.get("permissions") or [])
