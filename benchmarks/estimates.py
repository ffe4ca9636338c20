"""The report of one estimate: layers, kernels, sums, and the table of them for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.dense_bound import UNITS

ASSUMPTIONS = (
    "loads hit the first-level cache: waiting for memory is not counted, neither here nor in the bounds",
    "code runs at llvm-mca's steady rate, on an in-order core with an empty pipeline at every block outside innermost "
    "loops ('at least' predicts every branch, 'at most' starts with an empty pipeline on every core)",
    "branches that spikes decide are mispredicted as often as they go their rarer way, others at the end of long loops",
    "covered: the share of the instructions executed that lies in innermost loops, where the steady rate holds best",
    "LLVM has no model of its own for the Cortex-A72: it is scheduled as a Cortex-A57, and the Cortex-A76 here as a "
    "Neoverse N1",
    "the dense bounds count multiplications only: no loads, no neurons, no loop",
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Estimate of one layer; cycles of one inference."""

    layer: str
    kernels: str
    svitkit_cycles: float
    svitkit_low_cycles: float
    svitkit_high_cycles: float
    mispredicted_cycles: float
    dense_fp32_bound_cycles: float | None
    dense_int8_bound_cycles: float | None
    instructions: float
    covered_share: float
    bound_by: str
    macs: int
    measured_cycles: float | None


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Estimate of all calls of one kind of kernel; cycles of one inference.

    Attributes:
        kernel: its kind.
        calls: how often it is called.
        svitkit_cycles: of all these calls.
        share: of the whole network's cycles.
        instructions: executed.
        bound_by: what limits its costliest loop.
    """

    kernel: str
    calls: int
    svitkit_cycles: float
    share: float
    instructions: float
    bound_by: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate of a whole network.

    Attributes:
        core: whose cycles are meant.
        layers: in the order of execution.
        kernels: the costliest first.
        weights_bytes: weights that every inference reads.
    """

    core: str
    layers: Sequence[Layer]
    kernels: Sequence[Kernel]
    weights_bytes: int

    def total(self, key: str) -> float | None:
        """Sums an attribute over the layers; None if one has none."""
        values = [getattr(layer, key) for layer in self.layers]
        return None if any(value is None for value in values) else float(sum(values))

    def summary(self) -> dict[str, object]:
        """Returns sums; ratios are the dense bound over svitkit's estimate, so above 1 svitkit is faster."""
        cycles = sum(layer.svitkit_cycles for layer in self.layers)
        fp32, int8 = self.total("dense_fp32_bound_cycles"), self.total("dense_int8_bound_cycles")
        instructions = sum(layer.instructions for layer in self.layers)
        covered = sum(layer.covered_share * layer.instructions for layer in self.layers) / max(instructions, 1.0)
        unit = UNITS.get(self.core)
        return {
            "svitkit_cycles": cycles,
            "svitkit_low_cycles": self.total("svitkit_low_cycles"),
            "svitkit_high_cycles": self.total("svitkit_high_cycles"),
            "mispredicted_cycles": self.total("mispredicted_cycles"),
            "dense_fp32_bound_cycles": fp32,
            "dense_int8_bound_cycles": int8,
            "dense_fp32_ratio": fp32 / cycles if fp32 is not None else None,
            "dense_int8_ratio": int8 / cycles if int8 is not None else None,
            "dense_int8_assumes": unit.int8_how if unit else None,
            "instructions": instructions,
            "covered_share": covered,
            "macs": sum(layer.macs for layer in self.layers),
            "measured_cycles": self.total("measured_cycles"),
            "weights_bytes": self.weights_bytes,
        }


def print_table(result: dict[str, object], estimated: Estimate) -> None:
    """Prints layers, kernels and totals; every number but the host's measured ones is an estimate."""
    title = (
        f"ESTIMATE, not measured: {result['network']} {result['precision']} on {result['core']} "
        f"(llvm-mca {result['llvm_mca']}, model {result['scheduling_model']}), layers fire at {result['mean_rate']:.3f}"
    )
    heads = (
        "layer",
        "kernels",
        "k cycles",
        "at least",
        "at most",
        "dense fp32",
        "dense int8",
        "fp32 ratio",
        "covered",
        "bound by",
    )
    table = Table(*heads, *(["measured"] if result["measured_cycles"] else []), title=title)

    def row(name: str, kernels: str, numbers: dict[str, object], bound: str) -> None:
        def thousands(key: str) -> str:
            value = numbers[key]
            return "-" if value is None else f"{float(str(value)) / 1e3:.1f}"

        cycles, dense = numbers["svitkit_cycles"], numbers["dense_fp32_bound_cycles"]
        ratio = f"{float(str(dense)) / float(str(cycles)):.2f}" if dense and cycles else "-"
        keys = ["svitkit_cycles", "svitkit_low_cycles", "svitkit_high_cycles"]
        keys += ["dense_fp32_bound_cycles", "dense_int8_bound_cycles"]
        cells = [*map(thousands, keys), ratio, f"{100 * float(str(numbers['covered_share'])):.0f} %", bound]
        table.add_row(name, kernels, *cells, *([thousands("measured_cycles")] if result["measured_cycles"] else []))

    for layer in estimated.layers:
        row(layer.layer, layer.kernels, asdict(layer), layer.bound_by)
    table.add_section()
    row("whole network", "", result, "")
    console = Console(width=None if Console().is_terminal else 190)
    console.print(table, kernel_table(estimated.kernels))
    for assumption in ASSUMPTIONS:
        print(f"- {assumption}")
    print(f"- dense int8 bound: {result['dense_int8_assumes'] or 'not given for this machine'}")
    print(f"- weights: {float(str(result['weights_bytes'])) / 1e6:.1f} MB, whose way from memory is not counted")


def kernel_table(kernels: Sequence[Kernel]) -> Table:
    """Returns the table of kinds of kernels, the costliest first."""
    table = Table("kernel", "calls", "k cycles", "share", "M instructions", "bound by", title="by kind of kernel")
    for kernel in kernels:
        cells = (f"{kernel.svitkit_cycles / 1e3:.1f}", f"{100 * kernel.share:.1f} %")
        millions = f"{kernel.instructions / 1e6:.2f}"
        table.add_row(kernel.kernel, str(kernel.calls), *cells, millions, kernel.bound_by)
    return table
