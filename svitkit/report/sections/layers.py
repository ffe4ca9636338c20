"""Where the time of an inference goes, beside the spikes of every layer and the kernel that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from svitkit.report.blocks import Cell, Fold, Paragraph, Row, Section, Table
from svitkit.report.runs import Run
from svitkit.report.words import figure, microseconds, percent
from svitkit.runtime.bench.profile import Profile

COLUMNS = ("layer", "kernel", "p50 us", "share", "spikes", "inputs active", "predicted us", "why this kernel")
RATE_COLUMNS = ("layer", "spikes")


def layers(runs: Sequence[Run]) -> Section | None:
    """Shows every run's layers, those with a profile first; None if no run has looked at them."""
    found = [(run, run.record.profile) for run in runs if run.record.profile and run.record.profile.layers]
    profiled = [_profiled(run, profile, opened=not place) for place, (run, profile) in enumerate(found)]
    watched = [
        _watched(run, run.record.firing_rates) for run in runs if not run.record.profile and run.record.firing_rates
    ]
    if not profiled and not watched:
        return None
    said = Paragraph(
        text="Times are medians of inferences in which every kernel call was timed ('svitkit bench --profile'). "
        "Spikes are per neuron and time step, counted on the device. The share of inputs that are not 0 is that of "
        "calibration, and the reason that of the build."
    )
    return Section(anchor="layers", title="Layers: time, spikes, kernels", blocks=(said, *profiled, *watched))


def _profiled(run: Run, profile: Profile, *, opened: bool) -> Fold:
    rates = run.record.firing_rates or {}
    slowest = max(profile.layers, key=lambda layer: layer.p50_ns)
    longest = profile.share(slowest) or 1.0
    rows = []
    for call in profile.layers:
        choice = run.artefacts.manifest.choice(call.layer, call.kernel) if run.artefacts else None
        share, rate = profile.share(call), rates.get(call.layer)
        rows.append(
            Row(
                cells=(
                    call.layer,
                    call.kernel,
                    microseconds(call.p50_ns),
                    Cell(text=percent(share), bar=share / longest),
                    Cell(text=percent(rate), bar=rate),
                    percent(choice.input_density) if choice else "",
                    microseconds(choice.predicted_ns) if choice else "",
                    choice.reason if choice else "",
                )
            )
        )
    mark = ", times of the emulator" if profile.emulated else ""
    total = f"{figure(profile.sum_ns / 1e6)} ms in {len(profile.layers)} calls"
    return Fold(
        opened=opened,
        summary=f"{run.label}: {total}{mark}; the longest is {slowest.layer}, {percent(profile.share(slowest))}",
        blocks=(
            Table(
                caption=f"Layers of {run.label}{mark}; reading the clock adds {profile.overhead_ns:.0f} ns to every "
                f"call",
                columns=COLUMNS,
                rows=rows,
                numeric=frozenset(range(2, 7)),
            ),
        ),
    )


def _watched(run: Run, rates: dict[str, float] | None) -> Fold:
    found = rates or {}
    rows = [Row(cells=(layer, Cell(text=percent(rate), bar=rate))) for layer, rate in found.items()]
    mean = percent(sum(found.values()) / len(found))
    return Fold(
        summary=f"{run.label}: without a profile; {mean} spikes in the mean of the layers",
        blocks=(Table(caption=f"Spikes of {run.label}", columns=RATE_COLUMNS, rows=rows, numeric=frozenset({1})),),
    )
