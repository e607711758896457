"""What translating costs on top of `astream`, in one process without I/O: `python -m bench.translate`."""

import asyncio
import time
from typing import Any

from bench.graphs import bench_graphs
from slipstream_runner.translate import MODES, LlmRuns, Translator, assemble

COUNT = 5000


async def once(name: str, *, translated: bool) -> float:
    """Microseconds of CPU for each chunk."""
    graph: Any = getattr(bench_graphs, name)
    runs = LlmRuns()
    translator = Translator(1, runs)
    ordinal = 0
    begun = time.process_time()
    config = {"callbacks": [runs]} if translated else {}
    modes = list(MODES)
    async for namespace, mode, payload in graph.astream(
        {"count": COUNT}, config, stream_mode=modes, subgraphs=True, version="v1"
    ):
        if translated:
            translator.feed(namespace, mode, payload, 1)
            if len(translator) >= 64:
                ordinal += 1
                assemble(translator.drain()[0], "run", 1, ordinal)
    return 1e6 * (time.process_time() - begun) / COUNT


def main() -> None:
    """Print both, for tokens and for custom events."""
    for name in ("tokens", "customs"):
        bare = min(asyncio.run(once(name, translated=False)) for _ in range(3))
        both = min(asyncio.run(once(name, translated=True)) for _ in range(3))
        print(f"{name}: astream {bare:.1f} us, with both protocols {both:.1f} us a chunk (share {bare / both:.2f})")


if __name__ == "__main__":
    main()
