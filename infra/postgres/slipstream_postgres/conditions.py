"""SQL of the conditions that say which rows a caller may touch."""

from collections.abc import Callable

import msgspec

from slipstream_schemas.metadata_filter import Contains, Either, Equal, MetadataFilter

Put = Callable[[object], str]
"""Takes an argument of the statement and returns its placeholder."""


class Statement:
    """SQL that is put together, and its arguments."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = list(arguments)

    def put(self, value: object) -> str:
        """The placeholder of a value."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"


def allowed(found: MetadataFilter | None, put: Put, column: str = "metadata") -> str:
    """The condition on a JSON column, never null; `true` without a filter."""
    if found is None:
        return "true"
    if isinstance(found, Equal):
        # Containment is what the index answers; equality is what is asked: `{"a": {}}` contains in any object `a`.
        value, whole = msgspec.json.encode(found.value), msgspec.json.encode({found.key: found.value})
        exact = f'coalesce("{column}" -> {put(found.key)}::text = {put(value)}::jsonb, false)'
        return f'("{column}" @> {put(whole)}::jsonb AND {exact})'
    if isinstance(found, Contains):
        return f'"{column}" @> {put(msgspec.json.encode({found.key: list(found.items)}))}::jsonb'
    joint, nothing = (" OR ", "false") if isinstance(found, Either) else (" AND ", "true")
    return f"({joint.join(allowed(part, put, column) for part in found.parts)})" if found.parts else nothing
