"""The caller of a request: who it is, and in which tenant."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from slipstream_schemas.codec import dumps, to_plain
from slipstream_schemas.errors import Rejected
from slipstream_schemas.ids import check_token
from slipstream_schemas.limits import AUTH_USER_BYTES_MAX
from slipstream_schemas.users import User

DEFAULT_TENANT: Final = "default"
TENANT_KEY: Final = "tenant"
"""The field of a user that names the tenant."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `user` is what handlers see, `shown` the same as JSON, for runs."""

    tenant: str = DEFAULT_TENANT
    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: Any = None
    shown: dict[str, Any] | None = None

    @property
    def parts(self) -> tuple[str, str]:
        """Whose `Idempotency-Key` a key is: two callers may choose the same."""
        return self.tenant, self.identity


def caller_of(answer: object) -> Caller:
    """The caller that an `authenticate` handler described.

    It returns an identity, a mapping or an object with `identity`, or `(permissions, user)`.
    Raises: Rejected, whose message is for the operator.
    """
    given: object = None
    if isinstance(answer, tuple):
        pair = cast("tuple[object, ...]", answer)
        if len(pair) != 2:
            raise Rejected("authenticate returned a tuple that is not (permissions, user)")
        given, answer = pair
    user = _user(answer)
    identity = getattr(user, "identity", None)
    if not isinstance(identity, str) or not identity:
        raise Rejected("authenticate returned a user without an identity")
    if given is None:
        given = user.get("permissions") if isinstance(user, User) else getattr(user, "permissions", None)
    permissions = _permissions(given)
    shown = _shown(user, identity, permissions)
    if len(dumps(shown)) > AUTH_USER_BYTES_MAX:
        raise Rejected(f"authenticate returned a user of more than {AUTH_USER_BYTES_MAX} bytes")
    return Caller(_tenant(user), identity, permissions, user, shown)


def caller_again(tenant: str, shown: dict[str, Any]) -> Caller:
    """A caller of earlier, from what was kept of them as JSON."""
    user = User(shown)
    return Caller(tenant, str(shown["identity"]), tuple(user.permissions), user, shown)


def _user(answer: object) -> Any:
    if isinstance(answer, str):
        return User(identity=answer)
    if isinstance(answer, Mapping):
        found = cast("Mapping[str, Any]", answer)
        return User(found)
    return answer


def _permissions(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise Rejected("authenticate returned permissions that are not a list of strings")
    return tuple(str(each) for each in cast("Iterable[object]", given))


def _tenant(user: Any) -> str:
    named = getattr(user, TENANT_KEY, None)
    if named is None:
        return DEFAULT_TENANT
    if not isinstance(named, str):
        raise Rejected(f"authenticate returned a user whose {TENANT_KEY} is not a string")
    return check_token(named, TENANT_KEY)


def _shown(user: Any, identity: str, permissions: tuple[str, ...]) -> dict[str, Any]:
    """The user as JSON: its own fields, if it tells them, and those that every user has."""
    dump = getattr(user, "model_dump", None) or getattr(user, "dict", None)
    fields: Any = user if isinstance(user, dict) else dump() if callable(dump) else getattr(user, "__dict__", {})
    own = to_plain(fields)
    common = {
        "identity": identity,
        "display_name": str(getattr(user, "display_name", identity)),
        "is_authenticated": bool(getattr(user, "is_authenticated", True)),
        "permissions": list(permissions),
    }
    return {**(own if isinstance(own, dict) else {}), **common}
