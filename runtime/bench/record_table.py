"""A record as a table for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from svitkit.runtime.bench.record import CPU, BenchRecord, Memory

KIBIBYTE = 1024
NOT_A_BOARD = "emulator, not a board"


def render_record(record: BenchRecord) -> Table:
    """Draws a record: one row per figure, and only figures that were measured.

    Times and process memory of an emulated run are marked on every row.
    """
    title = f"{record.family} on {record.board}" + (f", {record.place}" if record.place is not None else "")
    table = Table(
        title=title, caption=_verdict(record), show_header=False, title_justify="left", caption_justify="left"
    )
    table.add_column("what", no_wrap=True)
    table.add_column("value")
    for what, value in _rows(record):
        table.add_row(what, value)
    return table


def _verdict(record: BenchRecord) -> str:
    if record.valid:
        return "valid run; its times are not a board's" if record.emulated else "valid run"
    return "INVALID run: " + "; ".join(record.reasons)


def _rows(record: BenchRecord) -> Iterator[tuple[str, str]]:
    golden = record.golden
    yield "device", record.device
    if record.processor != CPU:
        yield "ran on", record.processor
    if record.accuracy is not None:
        accuracy = record.accuracy
        images = f"{accuracy.count} {accuracy.split} images of {accuracy.dataset}"
        yield "accuracy on the device", f"{accuracy.percent:.2f} % ({images})"
    yield (
        "golden check",
        (
            f"{'equal' if golden.match else 'DIFFERENT'} on {golden.count} inputs "
            f"(largest difference {golden.max_abs_diff:.2g}, accepted {golden.tolerance:.2g})"
        ),
    )
    yield from _latency_rows(record)
    yield from _further_rows(record)
    yield from _memory_rows(record)
    if record.operations is not None:
        counts = record.operations
        share = f"{counts.synaptic / counts.dense:.1%} of {counts.dense / 1e6:.1f} M dense ones"
        yield "synaptic operations", f"{counts.synaptic / 1e6:.2f} M, {share} (calibrated)"
    if record.firing_rates:
        rates = record.firing_rates.values()
        yield "firing rates", f"{min(rates):.1%} to {max(rates):.1%}, mean of the layers {sum(rates) / len(rates):.1%}"
    yield from _device_rows(record)


def _latency_rows(record: BenchRecord) -> Iterator[tuple[str, str]]:
    latency = record.latency_ms
    mark = f" ({NOT_A_BOARD})" if latency.emulated else ""
    percentiles = {"p50": latency.p50, "p90": latency.p90, "p95": latency.p95, "p99": latency.p99}
    known = [f"{name} {value:.3f}" for name, value in percentiles.items() if value is not None]
    figures = ", ".join([*known, f"min {latency.min:.3f}", f"max {latency.max:.3f}"])
    threads = "1 thread" if record.threads == 1 else f"{record.threads} threads"
    if record.cpus is not None:
        threads += f" of {'core' if len(record.cpus) == 1 else 'cores'} {', '.join(map(str, record.cpus))}"
    yield f"latency, T={record.timesteps}", f"{figures} ms, {latency.count} samples on {threads}{mark}"
    yield "load, first inference", f"{record.load_ns / 1e6:.2f} ms, {record.first_ns / 1e6:.2f} ms{mark}"
    if record.stability is not None:
        steady = {True: "steady", False: "NOT steady", None: ""}[record.steady]
        warm_up = f" ({steady})" if steady else ""
        figures = f"spread {record.stability.spread:.1%}, drift {record.stability.drift:+.1%}"
        yield "stability", f"{figures}, after {record.warmup} inferences{warm_up}"
    if record.threads_tried is not None:
        tried = (f"{each.threads}: {each.p50_ms:.3f} ms" for each in record.threads_tried)
        yield "threads tried", ", ".join(tried)


def _further_rows(record: BenchRecord) -> Iterator[tuple[str, str]]:
    mark = f" ({NOT_A_BOARD})" if record.emulated else ""
    if record.stream is not None:
        stream = record.stream
        arrivals = "one after the other" if stream.fps is None else f"arriving at {stream.fps:g} fps"
        late = "" if stream.misses is None else f", {stream.misses} later than {stream.deadline_ms:.3g} ms"
        longest = f", longest {stream.latency_ms.max:.3f} ms"
        yield "stream", f"{stream.frames} frames {arrivals}, {stream.fps_reached:.1f} fps done{late}{longest}{mark}"
    if record.sustained is not None:
        kept = record.sustained
        ends = f"p50 {kept.first_ms:.3f} -> {kept.last_ms:.3f} ms ({kept.slowdown:+.1%})"
        warm = [window.celsius for window in kept.windows if window.celsius is not None]
        heat = f", {warm[0]:.0f} -> {max(warm):.0f} °C" if warm else ""
        yield "sustained", f"{kept.duration_s:.0f} s, {kept.inferences} inferences, {ends}{heat}{mark}"
    if record.energy is not None:
        energy = record.energy
        net = f"{energy.net_per_inference_mj:.3g} ± {energy.net_error_mj:.2g} mJ above idle"
        yield "energy per inference", f"{net if energy.resolved else 'not distinguishable from idle'} ({energy.meter})"
        yield "power", f"idle {energy.idle_w:.2f} W, running {energy.active_w:.2f} W: {energy.scope}"


def _memory_rows(record: BenchRecord) -> Iterator[tuple[str, str]]:
    memory = record.memory
    mark = f" ({NOT_A_BOARD})" if memory.emulated else ""
    yield "weights", _kibibytes(memory.weights_bytes) + _resident(memory)
    yield "states, workspace", f"{_kibibytes(memory.state_bytes)}, {_kibibytes(memory.workspace_bytes)}"
    if memory.vm_hwm_bytes is not None:
        yield "peak memory (VmHWM)", _kibibytes(memory.vm_hwm_bytes) + mark
    if memory.unexplained is not None and memory.floor_bytes is not None:
        parts = {
            "weights": memory.weights_bytes,
            "states": memory.state_bytes,
            "workspace": memory.workspace_bytes,
            "runtime floor": memory.floor_bytes,
        }
        terms = " + ".join(f"{name} {size / KIBIBYTE:,.0f}" for name, size in parts.items())
        yield "  is the sum of", f"{terms} = {_kibibytes(sum(parts.values()))}; {memory.unexplained:.1%} unexplained"
    if memory.pss_bytes is not None:
        yield "memory share (PSS)", _kibibytes(memory.pss_bytes) + mark
    if memory.private_bytes is not None:
        yield "private memory", _kibibytes(memory.private_bytes) + mark
    if memory.system_bytes is not None:
        yield "memory of the system", f"{_kibibytes(memory.system_bytes)} less free, by all programs and drivers{mark}"
    yield "bundle", _kibibytes(record.bundle_bytes)


def _resident(memory: Memory) -> str:
    """Says which part of the mapped weights is resident; whole pages are at most all of them."""
    if memory.emulated or memory.weights_resident_bytes is None or memory.weights_bytes == 0:
        return ""
    return f", mapped, {min(1.0, memory.weights_resident_bytes / memory.weights_bytes):.0%} of them resident"


def _device_rows(record: BenchRecord) -> Iterator[tuple[str, str]]:
    if record.after is None:
        return
    if record.after.governor is not None:
        yield "governor", record.after.governor
    clocks = record.after.actual_mhz or record.after.requested_mhz
    if clocks is not None:
        yield "clock after the run", f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    if record.after.temperatures_celsius is not None:
        hottest = max(record.after.temperatures_celsius, key=record.after.temperatures_celsius.__getitem__)
        yield "hottest zone", f"{hottest} {record.after.temperatures_celsius[hottest]:.1f} °C"


def _kibibytes(count: int) -> str:
    return f"{count / KIBIBYTE:,.0f} KiB"
