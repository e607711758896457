"""What a client learns of an exception (source: the reference server's rule), and what the log does."""

from slipstream_schemas.codec import to_plain
from slipstream_schemas.limits import ERROR_TEXT_CHARS_MAX

_OPEN_MODULES = ("langgraph.",)
_OPEN_TYPES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError, TimeoutError)
_QUOTING = frozenset({"langgraph", "langchain_core", "pydantic"})
"""Packages whose refusals quote what they were given, which came from a client."""
REDACTED = "An internal error occurred"


def describe_error(error: BaseException) -> dict[str, str]:
    """`{"error": type, "message": text}`; the text of a type that may hold secrets (a driver's, say) is redacted."""
    kind = type(error)
    is_open = kind in _OPEN_TYPES or kind.__module__.startswith(_OPEN_MODULES) or _is_user_type(kind)
    return {"error": kind.__name__, "message": _text_of(error) if is_open else REDACTED}


class Quoting(Exception):
    """Stands in the log for an error whose text may quote what a client sent; its text is the error's type."""


def for_log(error: BaseException) -> BaseException:
    """The error, or where it may quote what a client sent, its type and traceback alone.

    What a graph's own code raises says what its author wrote.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    module = str(last.tb_frame.f_globals.get("__name__")) if last is not None else ""
    if module.partition(".")[0] not in _QUOTING:
        return error
    return Quoting(type(error).__name__).with_traceback(error.__traceback__)


def _text_of(error: BaseException) -> str:
    try:
        # A row and a transition hold no NUL and no lone surrogate.
        text = str(to_plain(str(error)))
    except Exception:  # noqa: BLE001  the user's own method may raise anything
        return REDACTED
    left = len(text) - ERROR_TEXT_CHARS_MAX
    return text if left <= 0 else f"{text[:ERROR_TEXT_CHARS_MAX]}… ({left} characters more)"


def _is_user_type(kind: type[BaseException]) -> bool:
    """LangGraph's own interrupts and errors name what the graph's author wrote."""
    return any(base.__module__.startswith(_OPEN_MODULES) for base in kind.__mro__)
