"""The one tree of errors. Docstrings say who is at fault and what to do; HTTP codes live in the API alone."""

from collections.abc import Sequence

from slipstream_schemas.limits import NO_ROOM_RETRY_AFTER_S


class SlipstreamError(Exception):
    """Base of everything that Slipstream raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def shown(self) -> str:
        """What a client is told."""
        return self.message


class Rejected(SlipstreamError):
    """The caller's fault: the same request will be refused again."""


class InvalidArgument(Rejected):
    """A value is malformed or out of range. `loc` names it, as in `("body", "since")`."""

    def __init__(self, message: str, loc: Sequence[str | int] = ("body",), kind: str = "value_error") -> None:
        super().__init__(message)
        self.loc = tuple(loc)
        self.kind = kind


class NoSuchGraph(InvalidArgument):
    """A name that is neither the id of an assistant nor a registered graph."""


class NotFound(Rejected):
    """The named thing does not exist, or not for this caller."""


class NoSuchInterrupt(NotFound):
    """The interrupt does not exist, is answered already, or lies in another namespace."""


class TooLarge(Rejected):
    """A payload is over its limit; the message names the limit."""


class Forbidden(SlipstreamError):
    """The caller may not do this, whoever or whatever it is about."""


class Conflict(SlipstreamError):
    """The state of the thread does not allow it now; read again and decide."""


class Fenced(Conflict):
    """A later lease holder owns the thread log. Stop at once and do not acknowledge the work item.

    `actual` is the seq of the lease that rules now.
    """

    def __init__(self, message: str, actual: int) -> None:
        super().__init__(message)
        self.actual = actual


class Unavailable(SlipstreamError):
    """A part that is needed does not answer; the same request may succeed later."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooMany(SlipstreamError):
    """One caller has too much open at a time; with less it succeeds."""


class TooSlow(SlipstreamError):
    """What the caller sends does not arrive in time."""


class Unreachable(Unavailable):
    """NATS or Postgres does not do what it should. The message is for operators: it may name addresses and subjects."""

    @property
    def shown(self) -> str:
        """What a client is told."""
        return "A part of the server does not answer now. Try again."


class NoRoom(Unavailable):
    """The log's storage is used up. Nothing was stored, and nothing will be until there is room."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=NO_ROOM_RETRY_AFTER_S)


class NoResponder(Unreachable):
    """Nobody listens on the subject of a request, so nobody can have acted on it."""


class Corrupt(SlipstreamError):
    """What was read contradicts an invariant. Stop, and let an operator look."""
