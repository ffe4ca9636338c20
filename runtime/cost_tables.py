"""The cycles of every kind of work on every CPU model of cpus.toml, as ``benchmarks/fit_costs.py`` printed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from svitkit.runtime.work_counts import Memory


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs on one CPU model.

    Attributes:
        source: where they are from; ``measured`` or ``estimated``.
        memory: sizes of its registers and caches.
        cycles: cycles of one, by the names of :mod:`svitkit.runtime.work_counts`.
    """

    source: str
    memory: Memory
    cycles: Mapping[str, float]


_ROUGH = {
    "call": 1000.0,
    "list.list": 20.0,
    "list.compress": 4.0,
    "list.table": 8.0,
    "list.tail": 4.0,
    "rows_fp32.turn": 2.0,
    "rows_fp32.row": 0.6,
    "rows_int8.turn": 2.0,
    "rows_int8.row": 0.8,
    "rows_int4.turn": 4.0,
    "rows_int4.row": 0.6,
    "rows.list": 15.0,
    "rows.total": 0.5,
    "rows.join": 15.0,
    "position": 5.0,
    "neuron": 3.0,
    "current": 1.0,
    "dense.tile": 10.0,
    "rows.l2_line": 1.0,
    "rows.l3_line": 4.0,
    "dense.l2_line": 1.0,
    "weights.line": 4.0,
    **{
        f"dense_{k}.{n}": c
        for k in ("fp32", "int8", "vnni", "sdot")
        for n, c in (("product", 0.5), ("load", 0.5), ("input", 0.5))
    },
}
COSTS: Mapping[str, CostTable] = {
    cpu: CostTable(
        source="estimated", memory=Memory(register_bytes=size, l1_bytes=49152, l2_bytes=1048576), cycles=_ROUGH
    )
    for cpu, size in (
        ("x86-64-v4", 64),
        ("x86-64-v3", 32),
        ("x86-64-v2", 16),
        ("cortex-a53", 16),
        ("cortex-a57", 16),
        ("cortex-a72", 16),
        ("carmel", 16),
        ("cortex-a76", 16),
        ("cortex-a78ae", 16),
    )
}
