"""What the API asks of any runner because it takes a lease, and only runners write leases and thread logs."""

import msgspec


class SettleThread(msgspec.Struct, frozen=True, tag_field="ask", tag="settle"):
    """Publish the terminal records that an idle thread owes."""

    tenant: str
    thread_id: str


class EraseThread(msgspec.Struct, frozen=True, tag_field="ask", tag="erase"):
    """Erase the log and the checkpoints of a deleted thread."""

    tenant: str
    thread_id: str


UpkeepQuestion = SettleThread | EraseThread
