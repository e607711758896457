"""The model: what was asked of each thread and what was answered. The checks hold the log and the rows against it.

A request is *accepted* (2xx), *refused* (4xx) or *unknown*: its connection broke, or the answer was 503. A refused one
must have left nothing, an accepted one must be found, an unknown one may be either, once.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from testkit.client import new_thread

Outcome = Literal["sent", "accepted", "refused", "unknown"]
Kind = Literal["thread", "run", "respond", "cancel", "delete", "state", "bad"]
GRAPHS: Final = ("counter", "counter", "two_questions", "approval")
"""The graphs of an example's threads."""


@dataclass
class Asked:
    """One request. `number` stands in the metadata of a run that it creates."""

    number: int
    kind: Kind
    sent_at: float
    outcome: Outcome = "sent"
    answered_at: float = float("inf")
    status: int = 0
    said: str = ""
    run_id: str | None = None
    target: str | None = None
    action: str | None = None
    strategy: str | None = None
    steps: int = 0

    @property
    def may_have_happened(self) -> bool:
        """Whether the log may hold it."""
        return self.outcome != "refused"


@dataclass
class Thread:
    """A thread and all that was asked of it, in the order in which it was sent."""

    graph: str
    thread_id: str = field(default_factory=new_thread)
    asked: list[Asked] = field(default_factory=list[Asked])

    def of(self, *kinds: Kind) -> list[Asked]:
        """The requests of these kinds."""
        return [asked for asked in self.asked if asked.kind in kinds]

    @property
    def run_ids(self) -> list[str]:
        """The runs that are known to exist, in the order of their requests."""
        return [asked.run_id for asked in self.of("run", "respond") if asked.run_id is not None]

    @property
    def was_deleted(self) -> bool:
        """Whether a deletion was asked for and not refused: what is gone then is not missing."""
        return any(asked.may_have_happened for asked in self.of("delete"))

    def gone(self, asked: Asked) -> bool:
        """Whether a deletion may have taken what this request made."""
        return any(each.may_have_happened and each.answered_at > asked.sent_at for each in self.of("delete"))


@dataclass
class Model:
    """One example."""

    threads: list[Thread] = field(default_factory=lambda: [Thread(graph) for graph in GRAPHS])
    strangers: list[str] = field(default_factory=list[str])
    """Thread ids that refused commands named: nothing may exist under them."""
    crashed: bool = False
    """Whether a runner was killed or paused: a run may lose attempts."""


def run_input(graph: str, steps: int, delay_s: float) -> dict[str, Any]:
    """The input of a run that takes about `steps * delay_s`."""
    match graph:
        case "counter":
            # Each run counts from 0, so that its end shows whether a step was lost.
            return {"count": 0, "steps": steps, "delay_s": delay_s}
        case "two_questions":
            return {"answers": ["asked"]}
        case _:
            return {"amount": steps}
