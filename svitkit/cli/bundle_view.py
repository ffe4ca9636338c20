"""What ``svitkit inspect`` shows of a bundle: the kernel of every layer, and what is known about its time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import RenderableType

from svitkit.cli.output import kibibytes, table
from svitkit.cli.views import View, network_table
from svitkit.errors import ConfigError
from svitkit.manifest import Manifest, PrecisionTrial, read_manifest
from svitkit.parts import bundle_sha256, read_part
from svitkit.runtime.bench.profile import Profile, read_calls
from svitkit.runtime.bench.profile_table import microseconds
from svitkit.runtime.bench.record import read_record
from svitkit.runtime.bench.record_table import NOT_A_BOARD

PROGRAM_NAME = "program.txt"
RECORD_NAME = "record.json"
"""The record beside a bundle, where ``svitkit deploy`` writes it."""


NAMED = 3
"""Layers that are named where there may be many."""


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """What is known about one kernel call of a bundle; what is not known is None.

    Attributes:
        layer: the layer's name; of an operation without one, the graph's own name.
        kernel: the function in the machine code.
        reason: why this kernel.
        shape: (T, B, ...) of neurons, as in the graph; otherwise the number of elements that it writes.
        dtype: type of its output.
        firing_rate: spikes per neuron and time step in calibration (0..1).
        input_density: share of its inputs that are expected not to be 0 (0..1).
        predicted_ns: by the cost model of the board.
        p50_ns: by a record's profile.
    """

    layer: str
    kernel: str
    reason: str | None
    shape: tuple[int, ...]
    dtype: str
    firing_rate: float | None
    input_density: float | None
    predicted_ns: float | None
    p50_ns: int | None


@dataclass(frozen=True, kw_only=True)
class GpuView:
    """What a bundle asks of a GPU.

    Attributes:
        api: ``cuda`` or ``opencl``.
        architecture: the least compute capability; None for OpenCL.
        allows_cpu: whether an OpenCL device that is a CPU may take the GPU's place.
        precision: of weights that are real numbers.
        precision_trial: what fp16 weights changed where they were tried; None where none were.
        launches_per_run: kernel launches of one run of the program; in step mode that is one time step.
        launches_per_inference: of all its time steps.
        launches_at_load: when the bundle is loaded.
        bytes_moved_estimate: bytes of all buffers that the launches of an inference read or write, each once a launch;
            caches of the GPU may keep some of them.
        device_memory_bytes: weights, states and workspace, as planned.
    """

    api: str
    architecture: str | None
    allows_cpu: bool
    precision: str
    precision_trial: PrecisionTrial | None
    launches_per_run: int
    launches_per_inference: int
    launches_at_load: int
    bytes_moved_estimate: int
    device_memory_bytes: int


def view_bundle(path: Path, record: Path | None = None) -> View:
    """Shows a bundle's manifest: network, machine code, memory plan, the kernel of every layer, and files.

    Args:
        path: the bundle, a directory or a single file.
        record: whose profile is shown; if None, the record beside the bundle is looked at.

    Raises:
        ConfigError: there is no bundle, or the record that was named does not belong to it or has no profile.
        VerificationError: the program cannot be read.
    """
    manifest = read_manifest(path)
    profile, note = _find_profile(path, record)
    layers = _layer_views(manifest, read_part(path, PROGRAM_NAME).decode(), profile)
    files = [(name, f"{entry.size:,}", entry.sha256[:12]) for name, entry in manifest.files.items()]
    gpu = _gpu_view(manifest)
    result = {
        "kind": "bundle",
        "manifest": manifest,
        "gpu": None if gpu is None else asdict(gpu),
        "layers": [asdict(layer) for layer in layers],
    }
    return result, [
        network_table(str(path), manifest.model),
        table("Built for", ("fact", "value"), _build_facts(manifest)),
        *([] if gpu is None else [table("On the GPU", ("fact", "value"), _gpu_facts(gpu, manifest))]),
        _layer_table(layers, profile),
        note,
        table("Files", ("name", "bytes", "SHA-256"), files),
    ]


def _find_profile(bundle: Path, named: Path | None) -> tuple[Profile | None, str]:
    """Returns the profile of a bundle, if there is one, and a sentence about where it is from or why there is none."""
    path = named or bundle.resolve().parent / RECORD_NAME
    wish = f"Make one with 'svitkit bench {bundle} --profile -o FILE'."
    if named is None and not path.is_file():
        return None, f"no measured times: there is no {RECORD_NAME} beside the bundle. {wish}"
    try:
        found = read_record(path)
    except ConfigError as error:
        if named is not None:
            raise
        return None, f"no measured times: {error}"
    if found.bundle_sha256 != bundle_sha256(bundle):
        objection = f"{path} is the record of another bundle. {wish}"
    elif found.profile is None:
        objection = f"{path} holds no profile. {wish}"
    else:
        return found.profile, f"p50 is from {path}, measured on {found.device}"
    if named is not None:
        raise ConfigError(objection)
    return None, f"no measured times: {objection}"


def _layer_views(manifest: Manifest, program: str, profile: Profile | None) -> list[LayerView]:
    neurons = {layer.name: layer for layer in manifest.model.lif_layers}
    steps = manifest.model.timesteps if manifest.model.mode == "sequence" else 1
    calls = read_calls(program)
    times = [layer.p50_ns for layer in profile.layers] if profile else [None] * len(calls)
    views = []
    for call, p50_ns in zip(calls, times, strict=True):
        choice, lif = manifest.choice(call.layer, call.kernel), neurons.get(call.layer)
        views.append(
            LayerView(
                layer=call.layer,
                kernel=call.kernel,
                reason=choice.reason if choice else None,
                shape=(steps, *lif.state_shape) if lif and call.fires else (call.outputs,),
                dtype=call.dtype,
                firing_rate=lif.firing_rate if lif else None,
                input_density=choice.input_density if choice else None,
                predicted_ns=choice.predicted_ns if choice else None,
                p50_ns=p50_ns,
            )
        )
    return views


def _layer_table(layers: list[LayerView], profile: Profile | None) -> RenderableType:
    columns = ["layer", "kernel", "output", "calibrated rate"]
    cells = [
        [layer.layer, layer.kernel, f"{'x'.join(map(str, layer.shape))} {layer.dtype}", _percent(layer.firing_rate)]
        for layer in layers
    ]
    if any(layer.input_density is not None for layer in layers):
        columns.append("inputs active")
        for row, layer in zip(cells, layers, strict=True):
            row.append(_percent(layer.input_density))
    if any(layer.predicted_ns is not None for layer in layers):
        columns.append("predicted")
        for row, layer in zip(cells, layers, strict=True):
            row.append("" if layer.predicted_ns is None else microseconds(layer.predicted_ns))
    if profile is not None:
        columns.append("p50")
        for row, layer in zip(cells, layers, strict=True):
            row.append("" if layer.p50_ns is None else microseconds(layer.p50_ns))
    columns.append("why")
    rows = [(*row, layer.reason or "") for row, layer in zip(cells, layers, strict=True)]
    mark = f", p50 by an {NOT_A_BOARD}" if profile is not None and profile.emulated else ""
    return table(f"Layers{mark}", tuple(columns), rows)


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1%}"


def _arithmetic(manifest: Manifest) -> str:
    """What is computed with real numbers, in a line."""
    real = manifest.floating_point
    if not real:
        return "integers from the rounded input to the last neurons"
    some = ", ".join(real[:NAMED]) + (", ..." if len(real) > NAMED else "")
    return f"float32 in {len(real)} layers: {some}"


def _sparse_layers(manifest: Manifest) -> str:
    """How many layers are stored without zeros, and what that saves, in a line; with the layers that save most."""
    parts = manifest.sparse
    stored, expanded = sum(part.stored_bytes for part in parts), sum(part.expanded_bytes for part in parts)
    most = sorted(parts, key=lambda part: part.stored_bytes - part.expanded_bytes)[:NAMED]
    some = ", ".join(
        f"{part.layer} {kibibytes(part.expanded_bytes)} -> {kibibytes(part.stored_bytes)}" for part in most
    )
    ending = ", ..." if len(parts) > NAMED else ""
    return f"{len(parts)} layers, {kibibytes(expanded)} stored in {kibibytes(stored)}: {some}{ending}"


def _gpu_view(manifest: Manifest) -> GpuView | None:
    plan = manifest.gpu
    if plan is None:
        return None
    runs = manifest.model.timesteps if manifest.model.mode == "step" else 1
    return GpuView(
        api=plan.api,
        architecture=plan.architecture,
        allows_cpu=plan.allows_cpu,
        precision=plan.precision,
        precision_trial=plan.trial,
        launches_per_run=plan.launches,
        launches_per_inference=runs * plan.launches,
        launches_at_load=plan.prepared,
        bytes_moved_estimate=runs * plan.bytes_moved,
        device_memory_bytes=manifest.weights_bytes + manifest.state_bytes + manifest.workspace_bytes,
    )


def _gpu_facts(gpu: GpuView, manifest: Manifest) -> list[tuple[str, ...]]:
    parts = (manifest.weights_bytes, manifest.state_bytes, manifest.workspace_bytes)
    weights, states, workspace = map(kibibytes, parts)
    steps = f" ({gpu.launches_per_run} in each of {manifest.model.timesteps} time steps)"
    return [
        ("API", gpu.api + ", a CPU may take the GPU's place" * gpu.allows_cpu),
        ("architecture", "any" if gpu.architecture is None else f"{gpu.architecture} or newer"),
        ("precision", f"{gpu.precision} weights, fp32 sums, where they are real numbers"),
        *([] if gpu.precision_trial is None else [("fp16, tried", _trial_text(gpu.precision_trial))]),
        ("launches per inference", f"{gpu.launches_per_inference}" + steps * (manifest.model.mode == "step")),
        ("launches at load", str(gpu.launches_at_load)),
        ("bytes moved per inference", f"{kibibytes(gpu.bytes_moved_estimate)} (estimate: every buffer once a launch)"),
        (
            "planned device memory",
            f"{kibibytes(gpu.device_memory_bytes)}: weights {weights}, states {states}, workspace {workspace}",
        ),
    ]


def _trial_text(trial: PrecisionTrial) -> str:
    spikes = f"{1 - trial.spike_agreement:.2%} of the spikes"
    return f"changes {trial.class_changes} of {trial.inputs} classes and {spikes}, in ONNX Runtime"


def _build_facts(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        ("board", manifest.board + " (its GPU)" * (manifest.gpu is not None)),
        ("machine code", manifest.triple),
        ("CPU features it may use", ", ".join(manifest.required_features)),
        ("glibc", "none" if manifest.glibc_floor is None else f"{manifest.glibc_floor} or newer"),
        ("TVM", manifest.tvm_version),
        ("arithmetic", _arithmetic(manifest)),
        ("weights", kibibytes(manifest.weights_bytes)),
        *([("without zeros", _sparse_layers(manifest))] if manifest.sparse else []),
        ("states", kibibytes(manifest.state_bytes)),
        ("workspace", kibibytes(manifest.workspace_bytes)),
    ]
