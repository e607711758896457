"""The lock that makes one projector of a region the active one; whoever rebuilds takes it too.

It belongs to a session of Postgres, and a session outlives a client that is frozen, or cut off behind something that
answers in its place. So the projector's session ends by itself when nothing is said on it for a while. Two that think
themselves active for a moment do no harm: each applies a batch only behind the record before it.
"""

from typing import Final

_KEY: Final = "hashtext('slipstream projector ' || $1)"
TRY_LOCK: Final = f"SELECT pg_try_advisory_lock({_KEY})"
UNLOCK: Final = f"SELECT pg_advisory_unlock({_KEY})"
HOLD_S: Final = 2.0
HOLD_DEADLINE_S: Final = 4.0
LEASE_S: Final = 10
LEASE: Final = f"SELECT set_config(name, '{LEASE_S}s', false) FROM pg_settings WHERE name='idle_session_timeout'"
"""Postgres 13 has no such bound: there a frozen projector keeps its place."""

assert HOLD_S + HOLD_DEADLINE_S < LEASE_S
