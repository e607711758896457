"""What a client learns of an exception. Source: the reference server's rule."""

from slipstream_schemas.codec import to_plain
from slipstream_schemas.limits import ERROR_TEXT_CHARS_MAX

_OPEN_MODULES = ("langgraph.",)
_OPEN_TYPES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError, TimeoutError)
REDACTED = "An internal error occurred"


def describe_error(error: BaseException) -> dict[str, str]:
    """`{"error": type, "message": text}`; the text of a type that may hold secrets (a driver's, say) is redacted."""
    kind = type(error)
    is_open = kind in _OPEN_TYPES or kind.__module__.startswith(_OPEN_MODULES) or _is_user_type(kind)
    return {"error": kind.__name__, "message": _text_of(error) if is_open else REDACTED}


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
