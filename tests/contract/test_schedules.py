"""Schedules of ticks on a real broker."""

import time

from slipstream_nats.connection import Connection
from slipstream_nats.publisher import open_publisher
from slipstream_nats.schedules import Firing, Schedules, parse
from slipstream_nats.stored import last_of_subject
from slipstream_schemas import subjects
from slipstream_schemas.subjects import Scope


def in_ms(milliseconds: int) -> int:
    """A tick that far from now, to the second."""
    return (int(time.time() * 1000) + milliseconds) // 1000 * 1000


async def test_a_schedule_fires_once_is_replaced_cancelled_and_forgotten(connection: Connection, scope: Scope) -> None:
    schedules = Schedules(connection, await open_publisher(connection), scope.region)
    seen: list[Firing] = []
    far, over, soon = in_ms(3_600_000), in_ms(-3_600_000), in_ms(2_000)
    await schedules.put(scope, "cancelled", soon)
    await schedules.cancel(scope, "cancelled")
    await schedules.put(scope, "replaced", far)
    await schedules.put(scope, "replaced", soon)
    await schedules.put(scope, "over", over)
    async with schedules.firings() as firings:
        async for batch in firings:
            seen += [parse(message) for message in batch]
            if len(seen) == 2:
                break
    assert [(each.cron_id, each.due_ms, each.scope) for each in seen] == [
        ("over", over, scope), ("replaced", soon, scope),
    ]  # fmt: skip
    await schedules.done(seen[1])
    async with schedules.firings() as firings:
        again = parse((await anext(aiter(firings)))[0])
    assert again == seen[0], "what is not handled is read again"
    stream = subjects.control_stream(scope.region)
    for cron_id in ("cancelled", "replaced", "over"):
        assert await last_of_subject(connection, stream, subjects.cron_schedule(scope, cron_id)) is None
