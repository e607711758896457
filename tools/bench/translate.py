"""What translating costs on top of `astream`, in one process without I/O: `python -m bench.translate`."""

import asyncio
import statistics
import time
from typing import Any

from bench.graphs import bench_graphs
from slipstream_runner.translate import MODES, LlmRuns, Translator, assemble

COUNT, TRIALS = 1000, 15


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
    """Print the medians of both, taken in turns, for tokens and for custom events."""
    for name in ("tokens", "customs"):
        bare: list[float] = []
        both: list[float] = []
        for _ in range(TRIALS):
            bare.append(asyncio.run(once(name, translated=False)))
            both.append(asyncio.run(once(name, translated=True)))
        alone, all_in = statistics.median(bare), statistics.median(both)
        print(
            f"{name}: astream {alone:.1f} us, with both protocols {all_in:.1f} us a chunk (share {alone / all_in:.2f})"
        )


if __name__ == "__main__":
    main()
