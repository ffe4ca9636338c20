"""What travels between the stages beside the tensors: typed, frozen, and strict when read.

``ModelMetadata`` goes with an ONNX file (as JSON under the metadata key ``svitkit``) and, inside ``Manifest``, with a
bundle. Reading rejects unknown and missing keys.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from svitkit.errors import ConfigError, VerificationError
from svitkit.files import sha256, write_text
from svitkit.lif import LIFParams
from svitkit.lif_integer import STATE_DTYPES, Membrane
from svitkit.parts import read_part

MANIFEST_NAME = "manifest.json"
NAME_LETTERS = 60
"""Most of a bundle's file; in UTF-8 that fits the 255 bytes of every file system."""
METADATA_KEY = "svitkit"
Mode = Literal["sequence", "step"]
T = TypeVar("T")
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TensorSpec:
    """Name, shape and numpy dtype name of a tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Normalization:
    """Per-channel input normalization: ``(x / 255 - mean) / std`` for bytes, ``(x - mean) / std`` for event counts."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IntegerGrid:
    """How a layer of neurons computes in integers (:mod:`svitkit.lif_integer`).

    Attributes:
        membrane: the grid of the potentials between time steps.
        current_fraction: currents are multiples of 2^-current_fraction.
    """

    membrane: Membrane
    current_fraction: int

    @property
    def state_dtype(self) -> str:
        """The type of a potential in the exported file and in the bundle."""
        return STATE_DTYPES[self.membrane.bits]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LIFLayer:
    """One layer of neurons as it stands in the graph.

    Attributes:
        name: the module's qualified name in the trained network, for example ``blocks.0.attn.qkv_lif``.
        params: its constants.
        state_shape: shape of the membrane potential, batch axis included.
        firing_rate: spikes per neuron and time step seen in calibration (0..1); None if nothing was calibrated.
        integer: how it computes in integers; None where it computes in float32.
    """

    name: str
    params: LIFParams
    state_shape: tuple[int, ...]
    firing_rate: float | None = None
    integer: IntegerGrid | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelMetadata:
    """What an exported network is, beyond its graph.

    Attributes:
        family: ``spikformer``, ``spike-driven-transformer``, ``qkformer`` or the user's ``module:callable``.
        mode: ``sequence`` (all time steps inside) or ``step`` (one step; states are inputs and outputs).
        timesteps: T of one inference, in both modes.
        static_input: whether one image is shown at every time step; then a sequence model's input is (B, C, H, W).
        input: the graph's data input, normalized float32; (B, C, H, W) or (T, B, C, H, W).
        output: the logits, (B, classes); in step mode those of one step, whose mean over T steps are the sequence's.
        lif_layers: every layer of neurons, in the order of execution.
        parameter_bytes: bytes of the parameters in the graph (batch norm folded, dead parameters gone):
            float32, or integers at their width and their scales.
        original_parameter_bytes: the same count for the network before compression.
        plan_sha256: hash of the prune plan, None where nothing was pruned.
    """

    family: str
    mode: Mode
    timesteps: int
    static_input: bool
    input: TensorSpec
    output: TensorSpec
    lif_layers: tuple[LIFLayer, ...]
    normalization: Normalization
    class_names: tuple[str, ...]
    parameter_bytes: int
    original_parameter_bytes: int
    checkpoint_sha256: str
    plan_sha256: str | None
    producer: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KernelChoice:
    """Which kernel runs one layer, and on what grounds.

    Attributes:
        layer: the layer's name in the exported network; for a list of events, the name of the value that it is of.
        kernel: the kernel's name.
        reason: why this one.
        macs: multiply-accumulates of one run of the layer, computed densely, padding included; None without weights.
        input_density: share of its inputs that are not 0, by calibration (0..1); None for real inputs.
        predicted_ns: nanoseconds of one run of the layer by the cost model of the board; None if it has none.
    """

    layer: str
    kernel: str
    reason: str
    macs: int | None = None
    input_density: float | None = None
    predicted_ns: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SparseWeights:
    """Weights that are stored without zeros, and expanded when the bundle is loaded.

    Attributes:
        layer: whose they are.
        stored_bytes: in the weights file.
        expanded_bytes: in the workspace.
    """

    layer: str
    stored_bytes: int
    expanded_bytes: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrecisionTrial:
    """What fp16 weights change, tried in ONNX Runtime.

    Attributes:
        inputs: how many were shown.
        class_changes: of them, those that get another class.
        spike_agreement: share of the spikes of all layers, time steps and inputs that stay as they are (0..1).
    """

    inputs: int
    class_changes: int
    spike_agreement: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GpuPlan:
    """How a network runs on a GPU: kernels in a file of their own, and the static plan that libsvit plays on it.

    Attributes:
        api: through which driver: ``cuda`` (``libcuda.so.1``) or ``opencl`` (``libOpenCL.so.1``).
        architecture: the least compute capability, such as ``sm_87``; None for OpenCL.
        allows_cpu: whether an OpenCL device that is a CPU will do, as PoCL's is; only bundles for tests allow it.
        precision: of real weights whose inputs are spikes or counts, ``fp16`` or ``fp32``; sums are fp32.
        trial: on what grounds; None where no weights could be fp16.
        launches: kernel launches of one run of the network.
        prepared: kernel launches when the bundle is loaded.
        bytes_moved: estimate: bytes of all buffers that the launches of one run read or write, each once per launch.
    """

    api: Literal["cuda", "opencl"]
    architecture: str | None
    allows_cpu: bool
    precision: Literal["fp16", "fp32"]
    trial: PrecisionTrial | None = None
    launches: int
    prepared: int
    bytes_moved: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileEntry:
    """Checksum and size of one file of a bundle."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Manifest:
    """The table of contents of a bundle directory.

    Attributes:
        board: the board that the bundle was built for.
        triple: GNU triple of the machine code.
        target: the TVM target, as TVM's own JSON configuration.
        required_features: CPU features that the machine code may use, by their names in /proc/cpuinfo.
        glibc_floor: lowest glibc version on which the programs start; None if they need none, as a single file does.
        floating_point: layers that compute with float32, of those behind the rounding of the input, up to and with the
            last layer of neurons; empty where there are integers alone until the head.
        sparse: weights that are stored without zeros.
        gpu: how it runs on a GPU; None for the CPU.
        weights_bytes, state_bytes, workspace_bytes: the static memory plan; expanded weights lie in the workspace.
        golden_count: number of golden inputs kept in ``golden_input.bin`` with outputs in ``golden_output.bin``.
        golden_tolerance: largest absolute difference of logits that the golden check accepts.
        files: every other file of the bundle by name.
    """

    format_version: Literal[1] = 1
    model: ModelMetadata
    board: str
    triple: str
    target: dict[str, str | list[str]]
    required_features: tuple[str, ...]
    glibc_floor: str | None
    tvm_version: str
    kernels: tuple[KernelChoice, ...]
    floating_point: tuple[str, ...] = ()
    sparse: tuple[SparseWeights, ...] = ()
    gpu: GpuPlan | None = None
    weights_bytes: int
    state_bytes: int
    workspace_bytes: int
    golden_count: int
    golden_tolerance: float
    files: dict[str, FileEntry]

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        """What the network runs on."""
        return "cpu" if self.gpu is None else "gpu"

    def choice(self, layer: str, function: str) -> KernelChoice | None:
        """Returns why a function of the machine code runs a layer, None where nothing was to be chosen.

        Args:
            layer: the layer's name.
            function: the function's: a kernel's, mostly with a number behind it.
        """
        names = (function.rpartition("_")[0], function)
        found = {choice.kernel: choice for choice in self.kernels if choice.layer == layer}
        return next((found[name] for name in names if name in found), None)


def to_json(value: T, kind: type[T]) -> str:
    """Serializes a dataclass as indented JSON with a final newline."""
    return TypeAdapter(kind).dump_json(value, indent=2).decode() + "\n"


def from_json(text: str | bytes, kind: type[T], *, source: str) -> T:
    """Reads a dataclass from JSON.

    Args:
        text: the JSON.
        kind: the dataclass.
        source: where the text came from, for the error message.

    Raises:
        ConfigError: the text is no JSON, a key is unknown or missing, or a value has the wrong type.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(
            f"{source} is not a valid {kind.__name__}: {where}: {first['msg']}. "
            f"Write it again with this version of svitkit, or mend the key."
        ) from None


def read_manifest(bundle: Path) -> Manifest:
    """Reads the manifest of a bundle directory or single file."""
    return from_json(read_part(bundle, MANIFEST_NAME), Manifest, source=str(bundle / MANIFEST_NAME))


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Compares size and SHA-256 of every file of a bundle, or part of a single file, with its manifest.

    Raises:
        VerificationError: a file is missing, changed, or lies outside the bundle.
    """
    if bundle.is_file():
        _check_sections(bundle, manifest)
        return
    for name, entry in manifest.files.items():
        path = bundle / name
        if len(name) > NAME_LETTERS or Path(name).name != name or path.is_symlink() or not path.is_file():
            raise VerificationError(
                f"{bundle} lacks {name}: {name} is missing or no plain file of the bundle. Build the bundle again."
            )
        if path.stat().st_size != entry.size or sha256(path) != entry.sha256:
            raise VerificationError(
                f"{path} is not the file that the manifest names: got {path.stat().st_size} bytes with SHA-256 "
                f"{sha256(path)[:12]}, wanted {entry.size} bytes with {entry.sha256[:12]}. Build the bundle again."
            )


def _check_sections(program: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        content = read_part(program, name)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise VerificationError(
                f"{program}: its {name} is not what its manifest names: the file was changed. Build it again."
            )


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Writes the manifest of a bundle directory."""
    write_text(bundle / MANIFEST_NAME, to_json(manifest, Manifest))


def metadata_json(metadata: ModelMetadata) -> str:
    """Serializes metadata on one line, as the ONNX file carries it."""
    return json.dumps(json.loads(to_json(metadata, ModelMetadata)), separators=(",", ":"))
