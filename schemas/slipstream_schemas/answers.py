"""Interrupts that wait, and the answers to them."""

from collections.abc import Iterable
from typing import Any

import msgspec

from slipstream_schemas.errors import NoSuchInterrupt


class OpenInterrupt(msgspec.Struct, frozen=True):
    """An interrupt that waits for an answer."""

    id: str
    namespace: tuple[str, ...] = ()
    task_id: str = ""


class Answered(msgspec.Struct, frozen=True):
    """An interrupt and the answer that a run goes on with."""

    interrupt_id: str
    namespace: tuple[str, ...]
    response: Any


def answered_by(interrupts: tuple[OpenInterrupt, ...], command: dict[str, Any] | None) -> tuple[Answered, ...]:
    """The open interrupts that a command answers: those that its `resume` names, or the only one."""
    resume = (command or {}).get("resume")
    if resume is None:
        return ()
    by_id: dict[str, Any] = resume if isinstance(resume, dict) else {}
    named = tuple(Answered(each.id, each.namespace, by_id[each.id]) for each in interrupts if each.id in by_id)
    if named or len(interrupts) != 1:
        return named
    return (Answered(interrupts[0].id, interrupts[0].namespace, resume),)


def without_answered(
    interrupts: tuple[OpenInterrupt, ...], answers: tuple[OpenInterrupt, ...]
) -> tuple[tuple[OpenInterrupt, ...], tuple[OpenInterrupt, ...]]:
    """What stays open behind the answers, and what they take off.

    An answer names the interrupt's namespace or one above it: a stock client in a reloaded page knows the root task
    alone (ADR 33). Raises: NoSuchInterrupt.
    """
    by_id = {interrupt.id: interrupt for interrupt in interrupts}
    taken: list[OpenInterrupt] = []
    for answer in answers:
        found = by_id.pop(answer.id, None)
        if found is None:
            raise NoSuchInterrupt(f"No pending interrupt {answer.id}.")
        if found.namespace[: len(answer.namespace)] != answer.namespace:
            raise NoSuchInterrupt(f"Interrupt {answer.id} is not in that namespace.")
        taken.append(found)
    return tuple(by_id.values()), tuple(taken)


def still_open(
    asked: tuple[OpenInterrupt, ...], answered: Iterable[tuple[OpenInterrupt, ...]]
) -> tuple[OpenInterrupt, ...]:
    """What is asked and not among what runs that wait are going to answer."""
    ids = {each.id for some in answered for each in some}
    return tuple(each for each in asked if each.id not in ids)
