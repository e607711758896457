"""The lock that makes one projector of a region the active one; whoever rebuilds takes it too."""

from typing import Final

_KEY: Final = "hashtext('slipstream projector ' || $1)"
TRY_LOCK: Final = f"SELECT pg_try_advisory_lock({_KEY})"
UNLOCK: Final = f"SELECT pg_advisory_unlock({_KEY})"
