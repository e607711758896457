"""From what LangGraph streams to the lines of the log: one execution for both protocols.

What the runner receives are the parts of `graph.astream(version="v1", subgraphs=True)` in seven modes. Lines are
protocol v2 events; `x` on a line is what protocol v1 needs besides:

- values: `p`, the patch of `state_forms`.
- custom: `s`, true for what a graph's own stream transformer pushed, which v1 does not show.
- updates: `p`, the patch of `values`; `n`, true when the node's update was None; `d`, LangGraph's `__metadata__` (of a
  task that is not run again).
- tasks: `p`, the patch.
- checkpoints: `c` holds config, parent_config, metadata, next and tasks; `v` is 1 when the values are those of the
  next line, else they stand in `values`.
- messages: `m`, the message's metadata (on message-start); `c`, the chunk: 1 stands for the text of this delta, else
  its fields that are not default; `w`, a whole message.
- lifecycle of the root: `status`, `attempt`, `run_id`, `error`.

Lines of the type `x` are seen by v1 alone: `updates` with `__interrupt__`, `values` with nothing else, messages that v2
leaves out, and `events` (LangChain's own, recorded only for a run that asks for them).
"""

from slipstream_runner.translate.drafts import Draft, assemble
from slipstream_runner.translate.errors import describe_error, for_log
from slipstream_runner.translate.llm_runs import LlmRuns
from slipstream_runner.translate.translator import EXTENSION, MODES, Translator

__all__ = ["EXTENSION", "MODES", "Draft", "LlmRuns", "Translator", "assemble", "describe_error", "for_log"]
