"""The profile of a record as a table for people."""

from __future__ import annotations

from rich.table import Table

from svitkit.runtime.bench.profile import Profile
from svitkit.runtime.bench.record import BenchRecord
from svitkit.runtime.bench.record_table import NOT_A_BOARD, render_record


def render_whole(record: BenchRecord) -> list[Table]:
    """Draws a record, and its profile if it has one."""
    profile = [] if record.profile is None else [render_profile(record, record.profile)]
    return [render_record(record), *profile]


def render_profile(record: BenchRecord, profile: Profile) -> Table:
    """Draws where the time of one inference goes: one row per kernel call, in the order of execution.

    Args:
        record: the record that the profile belongs to; it knows the firing rates and the time of a whole inference.
        profile: its profile.
    """
    mark = f" ({NOT_A_BOARD})" if profile.emulated else ""
    table = Table(
        title=f"Time by layer, T={record.timesteps}{mark}",
        caption=_totals(record, profile) + mark,
        title_justify="left",
        caption_justify="left",
        show_footer=True,
    )
    table.add_column("layer", "sum of the parts", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    table.add_column("spikes on the device", justify="right")
    table.add_column("p50", microseconds(profile.sum_ns), justify="right", no_wrap=True)
    table.add_column("share", "100.0%", justify="right", no_wrap=True)
    rates = record.firing_rates or {}
    for layer in profile.layers:
        rate = f"{rates[layer.layer]:.1%}" if layer.layer in rates else ""
        share = f"{profile.share(layer):.1%}"
        table.add_row(layer.layer, layer.kernel, rate, microseconds(layer.p50_ns), share)
    return table


def _totals(record: BenchRecord, profile: Profile) -> str:
    """Sets the sum of the parts beside the whole, and says what measuring them costs."""
    calls = len(profile.layers) * (record.timesteps if record.mode == "step" else 1)
    parts, whole, samples = profile.sum_ns / 1e6, profile.p50_ns / 1e6, record.latency_ms.p50
    said = f"sum of the parts {parts:.3f} ms, p50 of the same inferences {whole:.3f} ms"
    if samples is not None:
        said += f", p50 of the samples without profile {samples:.3f} ms"
    return f"{said}; reading the clock adds {profile.overhead_ns:.0f} ns to each of {calls} calls"


def microseconds(nanoseconds: float) -> str:
    """Writes a duration for people."""
    return f"{nanoseconds / 1e3:,.1f} us"
