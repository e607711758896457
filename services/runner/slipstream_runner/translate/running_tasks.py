"""The tasks that run, by the path of their names.

A subgraph that keeps its state (`compile(checkpointer=True)`) has a namespace without task ids, the same for all tasks
that call it: it begins with the first of them and is over when none of them runs.
"""

from collections.abc import Iterable

Namespace = tuple[str, ...]
CALLER_SEGMENTS_MAX = 1
"""The task of a functional graph stands behind the entrypoint that called it, and is told without it."""


def _names(namespace: Namespace) -> Namespace:
    """A namespace without ids and counts, as subgraphs that keep their state have it.

    Source: langgraph's `recast_checkpoint_ns`.
    """
    return tuple(segment.partition(":")[0] for segment in namespace if not segment.isdecimal())


class RunningTasks:
    """Which tasks have begun and not ended."""

    def __init__(self) -> None:
        self._paths: dict[str, Namespace] = {}

    def begin(self, namespace: Namespace, name: str, task_id: str) -> None:
        """A task has begun."""
        self._paths[task_id] = (*_names(namespace), name)

    def end(self, namespace: Namespace, name: str, task_id: str, known: Iterable[Namespace]) -> list[Namespace]:
        """A task has ended. Which of the known subgraphs that keep their state are over with it."""
        self._paths.pop(task_id, None)
        path = (*_names(namespace), name)
        return [each for each in known if _is_called_by(each, path) and not self.callers(each)]

    def callers(self, namespace: Namespace) -> list[str]:
        """The ids of the tasks that may have called a subgraph that keeps its state."""
        return [task_id for task_id, path in self._paths.items() if _is_called_by(namespace, path)]


def _is_called_by(namespace: Namespace, path: Namespace) -> bool:
    return (
        namespace[: len(path) - 1] == path[:-1]
        and namespace[-1] == path[-1]
        and len(path) <= len(namespace) <= len(path) + CALLER_SEGMENTS_MAX
    )
