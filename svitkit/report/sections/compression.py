"""What the compression of every network decided: channels, bits, tokens, single weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2

from svitkit.models.plan import PrunePlan
from svitkit.models.spec import ModelSpec
from svitkit.report.artefacts import Artefacts
from svitkit.report.blocks import Block, Cell, Columns, Fold, Paragraph, Row, Section, Table
from svitkit.report.decisions import decision_tables
from svitkit.report.runs import Run, styles
from svitkit.report.words import kibibytes, percent

FLOAT_BITS = 32
OUTCOME = ("network", "weights KiB", "saved", "validation %", "test %", "layers x bits", "outcome")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that at least one run measured.

    Attributes:
        method: what made it.
        label: the method, and the board where the same method decided otherwise elsewhere.
        style: of the first run.
        artefacts: of the first run's bundle.
        spec: the network.
    """

    method: str
    label: str
    style: int
    artefacts: Artefacts
    spec: ModelSpec


def compression(runs: Sequence[Run]) -> Section | None:
    """Sets side by side what was decided for every network; None if no checkpoint was found."""
    networks = _networks(runs)
    if not networks:
        return None
    missing = sorted(
        {run.method for run in runs} - {run.method for run in runs if run.artefacts and run.artefacts.spec}
    )
    note = f"No checkpoint was found beside the records of {', '.join(missing)}."
    matrices = [
        *_matrix("Channels kept, by prune group", networks, lambda spec: _channels(spec.plan)),
        *_matrix("Bits of a weight, by layer (32 where not listed)", networks, _bits),
        *_matrix("Bits of a membrane potential, by layer of neurons (float32 where not listed)", networks, _membranes),
        *_matrix("Tokens computed, by block", networks, _tokens),
    ]
    blocks: list[Block] = [
        _outcomes(networks),
        *([Columns(blocks=matrices)] if matrices else []),
        *([Paragraph(text=note)] if missing else []),
    ]
    blocks += [
        Fold(summary=f"Decisions and reasons: {network.label}", blocks=tables)
        for network in networks
        if (tables := decision_tables(network.artefacts.decisions, network.artefacts.manifest))
    ]
    return Section(anchor="compression", title="What the compression decided", blocks=tuple(blocks))


def _networks(runs: Sequence[Run]) -> list[Network]:
    """Returns every network once: methods that decided the same for several boards are one."""
    style, found = styles(runs), list[Network]()
    for run in runs:
        if run.artefacts is None or run.artefacts.spec is None:
            continue
        spec = run.artefacts.spec
        same = [network for network in found if network.method == run.method]
        if any(_decided(network.spec) == _decided(spec) for network in same):
            continue
        label = run.label if same else run.method
        made = Network(method=run.method, label=label, style=style[run.name], artefacts=run.artefacts, spec=spec)
        found.append(made)
    return found


def _decided(spec: ModelSpec) -> tuple[object, ...]:
    return spec.plan, spec.quantization, spec.tokens, spec.sparse


def _outcomes(networks: Sequence[Network]) -> Table:
    rows = []
    for network in networks:
        report, spec = network.artefacts.decisions, network.spec
        saved = 1 - network.artefacts.manifest.weights_bytes / spec.original_parameter_bytes
        accuracy = ("", "") if report is None else _changes(report.before, report.after)
        widths = list((spec.quantization.layers if spec.quantization else {}).values())
        bits = " ".join(f"{widths.count(width)}x{width}" for width in sorted(set(widths)))
        cells = (
            Cell(text=network.label, style=network.style),
            kibibytes(network.artefacts.manifest.weights_bytes),
            Cell(text=percent(saved), bar=max(0.0, saved)),
            *accuracy,
            bits or "float32",
            report.why if report else "",
        )
        rows.append(Row(cells=cells))
    caption = "Weights in the bundle against the original's float32; accuracy of the search, in torch"
    return Table(caption=caption, columns=OUTCOME, rows=rows, numeric=frozenset(range(1, 5)))


def _changes(before: object, after: object) -> tuple[str, str]:
    def change(split: str) -> str:
        return f"{getattr(before, split):.2f} -> {getattr(after, split):.2f}"

    return change("validation"), change("test")


Decision = tuple[str, float]
"""What stands in a cell, and how strongly (0..1) the part was compressed."""


def _matrix(
    caption: str, networks: Sequence[Network], decide: Callable[[ModelSpec], Mapping[str, Decision]]
) -> list[Table]:
    """Lays decisions out, a row a part and a column a network; nothing if there are none."""
    decided = [(network, decide(network.spec)) for network in networks]
    decided = [(network, decisions) for network, decisions in decided if decisions]
    parts = list(dict.fromkeys(part for _, decisions in decided for part in decisions))
    if not parts:
        return []
    rows = [Row(cells=(part, *(_cell(decisions.get(part)) for _, decisions in decided))) for part in parts]
    columns = ("part", *(network.label for network, _ in decided))
    return [Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(1, len(columns))))]


def _cell(decision: Decision | None) -> Cell | str:
    return "" if decision is None else Cell(text=decision[0], heat=decision[1])


def _channels(plan: PrunePlan | None) -> dict[str, Decision]:
    """Returns what is left of every group, of the network before its first round."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for each in _rounds(plan):
        for pruned in each.groups:
            before.setdefault(pruned.group.name, pruned.group.channels)
            after[pruned.group.name] = len(pruned.kept)
    return {name: (f"{after[name]} of {count}", 1 - after[name] / count) for name, count in before.items()}


def _rounds(plan: PrunePlan | None) -> Iterable[PrunePlan]:
    """Yields the rounds of a plan, the first one first."""
    if plan is not None:
        yield from _rounds(plan.before)
        yield plan


def _bits(spec: ModelSpec) -> dict[str, Decision]:
    layers = spec.quantization.layers if spec.quantization else {}
    return {name: (str(bits), _fewer_bits(bits)) for name, bits in layers.items()}


def _membranes(spec: ModelSpec) -> dict[str, Decision]:
    membranes = spec.quantization.membranes if spec.quantization else {}
    return {name: (str(grid.bits), _fewer_bits(grid.bits)) for name, grid in membranes.items()}


def _fewer_bits(bits: int) -> float:
    """Returns how strongly (0..1) so many bits compress: 16 as far from 32 as 4 from 8."""
    return 1 - log2(bits) / log2(FLOAT_BITS)


def _tokens(spec: ModelSpec) -> dict[str, Decision]:
    return {
        each.block: (f"{each.kept} of {each.tokens}, {each.criterion}", 1 - each.kept / each.tokens)
        for each in spec.tokens
    }
