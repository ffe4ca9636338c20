"""The clock of this machine's cores while they work. Virtual machines say nothing true about it, so it is measured."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

TURNS = 1_000_000
TURN_CYCLES = 2  # an exclusive or, then a sum: one cycle each on every core of today
RUNS = 7
STEP_MHZ = 50


@cache
def measure_clock_mhz() -> float:
    """Returns the clock, to 50 MHz, by a chain of operations that wait for one another."""
    import numpy as np
    import tvm

    out = tvm.runtime.tensor(np.zeros(1, np.uint32))
    chain = _chain()
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter_ns()
        chain(out, 0, 1)
        best = min(best, time.perf_counter_ns() - start)
    return round(TURNS * TURN_CYCLES / best * 1e3 / STEP_MHZ) * STEP_MHZ


def _chain() -> Any:
    import tvm
    from tvm.script.ir_builder import tirx as T

    from svitkit.runtime.kernels.emit import function

    def body(out: Any) -> None:
        with T.serial(0, TURNS) as i:
            turned = T.bitwise_xor(out[0], T.cast(i, "uint32"))
            T.buffer_store(out, turned + T.uint32(12345), [0])

    chain = function([("out", 1, "uint32")], body).with_attr("global_symbol", "chain")
    return tvm.compile(tvm.IRModule({"chain": chain}), target="llvm").jit()["chain"]
