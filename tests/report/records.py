"""Records as a board writes them, and the folders that ``svitkit deploy`` leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from svitkit.compress.balance import BalanceConfig
from svitkit.compress.report import Accuracy as SearchAccuracy
from svitkit.compress.report import GroupReport, PruneReport
from svitkit.compress.report_layers import LayerReport
from svitkit.files import sha256
from svitkit.manifest import KernelChoice, Manifest, Normalization, SparseWeights, to_json, write_manifest
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan
from svitkit.models.spec import InputQuantization, ModelSpec, QuantizationSpec, TokenReduction
from svitkit.report.artefacts import Artefacts
from svitkit.report.runs import Run
from svitkit.runtime.bench.device_state import DeviceState
from svitkit.runtime.bench.energy import Energy
from svitkit.runtime.bench.latency import summarize_latency
from svitkit.runtime.bench.profile import Profile
from svitkit.runtime.bench.record import Accuracy, BenchRecord, Golden, Memory, record_json
from svitkit.runtime.bench.runner_report import LayerTime, RunnerDevice
from svitkit.runtime.bench.streaming import Stream
from svitkit.runtime.bench.sustained import Sustained, SustainedWindow
from tests.runtime.bundles import metadata

MILLISECOND = 1_000_000
ORIN = RunnerDevice(api="cuda", type="gpu", name="Orin", driver="CUDA 12.6")
KIBIBYTE = 1024


def record(
    *,
    board: str = "raspberry-pi-4",
    emulated: bool = False,
    samples_ms: tuple[float, ...] = (1.0, 1.1, 0.9, 1.2, 1.0, 1.1),
    accuracy: float | None = 95.0,
    peak_kib: int = 4096,
    reasons: tuple[str, ...] = (),
    profile: bool = False,
    threads: int = 1,
    bundle_sha256: str = "ab" * 32,
    device: str = "Raspberry Pi 4 Model B Rev 1.4",
    ran_on: RunnerDevice | None = None,
) -> BenchRecord:
    """A record of 200 images; not valid where there are reasons."""
    samples = tuple(round(sample * MILLISECOND) for sample in samples_ms)
    times = (LayerTime(layer="stem.lif", kernel="event_conv_0", p50_ns=300_000, total_ns=3_000_000, calls=10),) * 2
    return BenchRecord(
        board=board,
        built_for=board,
        device=device,
        ran_on=ran_on,
        emulated=emulated,
        started_at="2026-01-02T03:04:05+00:00",
        versions={"svitkit": "0.1.0", "tvm": "0.27.0"},
        family="spikformer",
        mode="sequence",
        timesteps=4,
        target={"kind": "llvm", "mattr": ["+aes"]},
        bundle_sha256=bundle_sha256,
        bundle_bytes=100 * KIBIBYTE,
        cpu_features=("fp", "asimd"),
        threads=threads,
        warmup=5,
        attempts=1,
        load_ns=7 * MILLISECOND,
        first_ns=4 * MILLISECOND,
        samples_ns=samples,
        latency_ms=summarize_latency(samples, emulated=emulated),
        memory=Memory(
            emulated=emulated,
            weights_bytes=512 * KIBIBYTE,
            state_bytes=64 * KIBIBYTE,
            workspace_bytes=192 * KIBIBYTE,
            vm_hwm_bytes=peak_kib * KIBIBYTE,
        ),
        golden=Golden(match=True, count=8, max_abs_diff=0.0, tolerance=0.001, argmax_mismatches=0),
        accuracy=None if accuracy is None else Accuracy(percent=accuracy, count=200, dataset="digits"),
        firing_rates={"stem.lif": 0.125},
        profile=Profile(emulated=emulated, p50_ns=900_000, overhead_ns=20.0, layers=times) if profile else None,
        before=None if emulated else DeviceState(governor="performance", temperatures_celsius={"cpu": 48.5}),
        valid=not reasons,
        reasons=reasons,
    )


def run(method: str = "int8", found: BenchRecord | None = None, artefacts: Artefacts | None = None) -> Run:
    """A run of a report."""
    measured = found or record()
    return Run(
        method=method,
        name=method,
        source=f"{method}/record.json",
        record=measured,
        where=measured.board,
        artefacts=artefacts,
    )


SPEC = ModelSpec(
    family="spikformer",
    arguments={},
    timesteps=4,
    input_shape=(1, 16, 16),
    static_input=True,
    normalization=Normalization(mean=(0.0,), std=(1.0,)),
    class_names=("zero", "one"),
    plan=PrunePlan(
        groups=(
            PrunedGroup(group=PruneGroup(name="mlp", channels=8, members=(Member(tensor="w", dim=0),)), kept=(1, 2)),
        )
    ),
    quantization=QuantizationSpec(layers={"stem": 8, "head": 4}, input=InputQuantization(scale=0.5, zero_point=0)),
    tokens=(
        TokenReduction(
            block="blocks.0", grid=(4, 4), channels=8, kept=4, criterion="activity", rest="skip", currents=False
        ),
    ),
    original_parameter_bytes=2048 * KIBIBYTE,
    provenance={"compressed": {"method": "svitkit,token-skip,int8"}},
)

MANIFEST = Manifest(
    model=metadata(4),
    board="raspberry-pi-4",
    triple="aarch64-linux-gnu",
    target={"kind": "llvm"},
    required_features=(),
    glibc_floor="2.27",
    tvm_version="0.27",
    kernels=(KernelChoice(layer="stem.lif", kernel="event_conv", reason="7% of inputs active", input_density=0.07),),
    sparse=(SparseWeights(layer="head", stored_bytes=2048, expanded_bytes=8192),),
    weights_bytes=512 * KIBIBYTE,
    state_bytes=0,
    workspace_bytes=0,
    golden_count=0,
    golden_tolerance=0.0,
    files={},
)


def decisions(method: str) -> PruneReport:
    """What a compression says about itself."""
    group = GroupReport(
        name="mlp",
        channels_before=8,
        channels_after=2,
        blocks=1,
        size_bytes=4096,
        filter_bytes=2048,
        order=1,
        target=True,
        ratio=0.75,
        score=None,
        sweep=(),
        decision="pruned",
        why="the budget allows it",
    )
    return PruneReport(
        method=method,
        satisfied=True,
        why="saves 75.0 %",
        settings=BalanceConfig(),
        bn_recalibration=0,
        finetune_epochs=0,
        seed=0,
        limit=None,
        before=SearchAccuracy(validation=99.0, test=98.0),
        after=SearchAccuracy(validation=98.5, test=97.0),
        original_parameter_bytes=2048 * KIBIBYTE,
        parameter_bytes_before=2048 * KIBIBYTE,
        parameter_bytes_after=512 * KIBIBYTE,
        memory_saving=0.75,
        groups=(group,),
        layers=(LayerReport(name="stem", bits=8, weights=4096, size_bytes=4096, why="protected"),),
    )


def deploy(folder: Path, measured: BenchRecord, *, method: str | None = "svitkit") -> BenchRecord:
    """Writes what ``svitkit deploy`` leaves; a method of None is a checkpoint that was never compressed.

    Returns:
        The record as it was written, of the bundle beside it.
    """
    write_manifest(folder / "bundle", replace(MANIFEST, board=measured.board))
    spec = SPEC if method else replace(SPEC, provenance={})
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "svit.json").write_text(to_json(spec, ModelSpec))
    if method:
        (folder / "checkpoint" / "report.json").write_text(to_json(decisions(method), PruneReport))
    belongs = replace(measured, bundle_sha256=sha256(folder / "bundle" / "manifest.json"))
    (folder / "record.json").write_text(record_json(belongs))
    return belongs


def with_load(measured: BenchRecord) -> BenchRecord:
    """Adds what is measured beside latency: a board that slows down by a half, late frames, and energy."""
    windows = tuple(
        SustainedWindow(start_s=second, count=100, p50_ms=1.0 + 0.1 * second, max_ms=2.0, celsius=50.0 + second)
        for second in range(6)
    )
    return replace(
        measured,
        sustained=Sustained(
            emulated=measured.emulated,
            duration_s=6.0,
            inferences=600,
            first_ms=1.0,
            last_ms=1.5,
            slowdown=0.5,
            windows=windows,
        ),
        stream=Stream(
            fps=100.0,
            frames=200,
            fps_reached=100.0,
            deadline_ms=10.0,
            misses=3,
            latency_ms=summarize_latency([MILLISECOND] * 197 + [20 * MILLISECOND] * 3, emulated=measured.emulated),
            latencies_ns=(MILLISECOND,) * 197 + (20 * MILLISECOND,) * 3,
        ),
        energy=Energy(
            meter="INA3221",
            scope="rails VDD_IN",
            inferences=1000,
            phase_s=10.0,
            idle_w=2.0,
            active_w=5.0,
            rails_w={"VDD_IN": 5.0},
            idle_drift_w=0.1,
            per_inference_mj=50.0,
            net_per_inference_mj=30.0,
            net_error_mj=1.5,
            resolved=True,
        ),
    )
