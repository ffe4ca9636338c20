"""The cycles of every kind of work on every CPU model of cpus.toml, as ``benchmarks/fit_costs.py`` printed them.

x86-64 was measured on one machine (AMD EPYC, family 26): another one divides its time otherwise, but seldom so that
the other method wins. Arm cores are estimates by llvm-mca, in which every load hits the first-level cache; what a cache
line from farther away costs is assumed. Made anew with ``python benchmarks/fit_costs.py --cpu NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from svitkit.runtime.work_counts import Memory


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs on one CPU model.

    Attributes:
        source: where they are from; ``measured`` or ``estimated``, and how.
        memory: sizes of its registers and caches.
        cycles: cycles of one, by the names of :mod:`svitkit.runtime.work_counts`.
    """

    source: str
    memory: Memory
    cycles: Mapping[str, float]


_X86_64_V4 = {
    "call": 3680.0,
    "current": 11.6,
    "dense.l2_line": 0.475,
    "dense.tile": 3.14,
    "dense_fp32.input": 1.07,
    "dense_fp32.load": 0.514,
    "dense_fp32.product": 0.0,
    "dense_int8.input": 1.15,
    "dense_int8.load": 0.897,
    "dense_int8.product": 0.0,
    "dense_vnni.input": 1.33,
    "dense_vnni.load": 0.0,
    "dense_vnni.product": 0.0,
    "list.compress": 14.2,
    "list.list": 3.36,
    "list.table": 6.77,
    "list.tail": 0.431,
    "neuron": 11.5,
    "position": 0.0,
    "rows.join": 22.1,
    "rows.l2_line": 1.18,
    "rows.l3_line": 0.238,
    "rows.list": 10.0,
    "rows.total": 5.28,
    "rows_fp32.row": 0.00418,
    "rows_fp32.turn": 2.09,
    "rows_int4.row": 0.743,
    "rows_int4.turn": 0.0,
    "rows_int8.row": 0.0968,
    "rows_int8.turn": 3.0,
    "weights.line": 14.1,
}
_X86_64_V3 = {
    "call": 4250.0,
    "current": 8.51,
    "dense.l2_line": 0.109,
    "dense.tile": 18.7,
    "dense_fp32.input": 0.947,
    "dense_fp32.load": 0.0,
    "dense_fp32.product": 0.0331,
    "dense_int8.input": 0.463,
    "dense_int8.load": 2.17,
    "dense_int8.product": 0.0,
    "list.list": 0.0,
    "list.table": 5.26,
    "list.tail": 7.68,
    "neuron": 9.99,
    "position": 0.0,
    "rows.join": 24.7,
    "rows.l2_line": 1.43,
    "rows.l3_line": 0.0,
    "rows.list": 4.59,
    "rows.total": 5.33,
    "rows_fp32.row": 0.0347,
    "rows_fp32.turn": 1.75,
    "rows_int4.row": 0.539,
    "rows_int4.turn": 0.0,
    "rows_int8.row": 0.342,
    "rows_int8.turn": 2.48,
    "weights.line": 27.2,
}
_X86_64_V2 = {
    "call": 4610.0,
    "current": 6.68,
    "dense.l2_line": 0.0,
    "dense.tile": 0.0,
    "dense_fp32.input": 0.0,
    "dense_fp32.load": 4.05,
    "dense_fp32.product": 0.0,
    "dense_int8.input": 1.46,
    "dense_int8.load": 2.64,
    "dense_int8.product": 0.0,
    "list.list": 0.0,
    "list.table": 5.02,
    "list.tail": 4.97,
    "neuron": 8.19,
    "position": 0.0,
    "rows.join": 26.8,
    "rows.l2_line": 2.17,
    "rows.l3_line": 1.76,
    "rows.list": 0.0,
    "rows.total": 4.85,
    "rows_fp32.row": 0.46,
    "rows_fp32.turn": 0.801,
    "rows_int4.row": 0.714,
    "rows_int4.turn": 3.34,
    "rows_int8.row": 0.505,
    "rows_int8.turn": 1.01,
    "weights.line": 36.0,
}
_CORTEX_A53 = {
    "call": 546.0,
    "current": 2.7,
    "dense.tile": 6.56,
    "dense_fp32.input": 6.42,
    "dense_fp32.load": 5.29,
    "dense_fp32.product": 0.0,
    "dense_int8.input": 5.21,
    "dense_int8.load": 3.31,
    "dense_int8.product": 0.0,
    "list.list": 0.0,
    "list.table": 40.8,
    "list.tail": 9.96,
    "neuron": 12.7,
    "position": 27.1,
    "rows.join": 70.5,
    "rows.list": 118.0,
    "rows.total": 0.16,
    "rows_fp32.row": 1.63,
    "rows_fp32.turn": 3.86,
    "rows_int4.row": 2.4,
    "rows_int4.turn": 8.3,
    "rows_int8.row": 1.53,
    "rows_int8.turn": 7.04,
    "rows.l2_line": 4.0,
    "dense.l2_line": 4.0,
    "rows.l3_line": 12.0,
    "weights.line": 12.0,
}
_CORTEX_A72 = {
    "call": 118.0,
    "current": 1.53,
    "dense.tile": 0.0,
    "dense_fp32.input": 3.47,
    "dense_fp32.load": 1.33,
    "dense_fp32.product": 0.0,
    "dense_int8.input": 3.04,
    "dense_int8.load": 0.856,
    "dense_int8.product": 0.0,
    "list.list": 0.0,
    "list.table": 7.77,
    "list.tail": 1.18,
    "neuron": 6.83,
    "position": 58.4,
    "rows.join": 21.0,
    "rows.list": 40.4,
    "rows.total": 0.0641,
    "rows_fp32.row": 1.04,
    "rows_fp32.turn": 3.08,
    "rows_int4.row": 1.2,
    "rows_int4.turn": 0.0,
    "rows_int8.row": 0.56,
    "rows_int8.turn": 4.14,
    "rows.l2_line": 4.0,
    "dense.l2_line": 4.0,
    "rows.l3_line": 12.0,
    "weights.line": 12.0,
}
_CORTEX_A76 = {
    "call": 104.0,
    "current": 3.59,
    "dense.tile": 3.87,
    "dense_fp32.input": 2.05,
    "dense_fp32.load": 1.18,
    "dense_fp32.product": 0.0,
    "dense_int8.input": 0.0,
    "dense_int8.load": 0.0,
    "dense_int8.product": 6.57,
    "dense_sdot.input": 1.06,
    "dense_sdot.load": 2.15,
    "dense_sdot.product": 0.0,
    "list.list": 0.0,
    "list.table": 8.33,
    "list.tail": 1.4,
    "neuron": 6.65,
    "position": 0.0,
    "rows.join": 19.2,
    "rows.list": 26.8,
    "rows.total": 0.943,
    "rows_fp32.row": 0.83,
    "rows_fp32.turn": 1.41,
    "rows_int4.row": 1.25,
    "rows_int4.turn": 0.0,
    "rows_int8.row": 0.706,
    "rows_int8.turn": 2.28,
    "rows.l2_line": 4.0,
    "dense.l2_line": 4.0,
    "rows.l3_line": 12.0,
    "weights.line": 12.0,
}
COSTS: Mapping[str, CostTable] = {
    "x86-64-v4": CostTable(
        source="measured on AMD EPYC (family 26)",
        memory=Memory(register_bytes=64, l1_bytes=49152, l2_bytes=1048576),
        cycles=_X86_64_V4,
    ),
    "x86-64-v3": CostTable(
        source="measured on AMD EPYC (family 26)",
        memory=Memory(register_bytes=32, l1_bytes=49152, l2_bytes=1048576),
        cycles=_X86_64_V3,
    ),
    "x86-64-v2": CostTable(
        source="measured on AMD EPYC (family 26)",
        memory=Memory(register_bytes=16, l1_bytes=49152, l2_bytes=1048576),
        cycles=_X86_64_V2,
    ),
    "cortex-a53": CostTable(
        source="estimated by llvm-mca 22.1.8",
        memory=Memory(register_bytes=16, l1_bytes=32768, l2_bytes=524288),
        cycles=_CORTEX_A53,
    ),
    "cortex-a57": CostTable(
        source="estimated by llvm-mca 22.1.8, as cortex-a72",
        memory=Memory(register_bytes=16, l1_bytes=32768, l2_bytes=2097152),
        cycles=_CORTEX_A72,
    ),
    "cortex-a72": CostTable(
        source="estimated by llvm-mca 22.1.8",
        memory=Memory(register_bytes=16, l1_bytes=32768, l2_bytes=1048576),
        cycles=_CORTEX_A72,
    ),
    "carmel": CostTable(
        source="estimated by llvm-mca 22.1.8, as cortex-a72",
        memory=Memory(register_bytes=16, l1_bytes=65536, l2_bytes=2097152),
        cycles=_CORTEX_A72,
    ),
    "cortex-a76": CostTable(
        source="estimated by llvm-mca 22.1.8",
        memory=Memory(register_bytes=16, l1_bytes=65536, l2_bytes=524288),
        cycles=_CORTEX_A76,
    ),
    "cortex-a78ae": CostTable(
        source="estimated by llvm-mca 22.1.8, as cortex-a76",
        memory=Memory(register_bytes=16, l1_bytes=65536, l2_bytes=262144),
        cycles=_CORTEX_A76,
    ),
}
