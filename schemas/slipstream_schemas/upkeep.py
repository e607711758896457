"""What the API asks of any runner because only runners write leases and thread logs, and remove what is in them."""

import msgspec


class SettleThread(msgspec.Struct, frozen=True, tag_field="ask", tag="settle"):
    """Publish the terminal records that an idle thread owes."""

    tenant: str
    thread_id: str


class EraseThread(msgspec.Struct, frozen=True, tag_field="ask", tag="erase"):
    """Erase the log and the checkpoints of a deleted thread."""

    tenant: str
    thread_id: str


class TrimLog(msgspec.Struct, frozen=True, tag_field="ask", tag="trim"):
    """Remove what a thread log holds from before `before_ms`, in Unix milliseconds, if it may go."""

    tenant: str
    thread_id: str
    before_ms: int


UpkeepQuestion = SettleThread | EraseThread | TrimLog
