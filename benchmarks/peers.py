"""The runtimes that are compared, each prepared from one exported network.

Every peer is given what makes it fast: ONNX Runtime its full graph optimization and either form of the neurons, int8
weights and activations by its own static quantization; OpenVINO its latency mode and every precision it offers here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.network_files import Files, Frames
from svitkit.boards.board import load_board
from svitkit.errors import VerificationError
from svitkit.models.run import forward_logits
from svitkit.runtime.build import build_bundle
from svitkit.runtime.session import Session

Runtime = Callable[[Frames], NDArray[np.float32]]


class UnavailableError(Exception):
    """A runtime cannot run the network here; the text says why."""


def svitkit_fp32(files: Files) -> Runtime:
    """Builds the bundle for this machine and loads it."""
    bundle = files.work / "bundle"
    build_bundle(files.onnx, load_board("host"), bundle, golden=files.inputs)
    return Session(bundle, threads=files.threads).run


def svitkit_integer(files: Files, method: str) -> Runtime:
    """Builds the bundle with integer weights, loads it and holds it against ONNX Runtime on the same file.

    Raises:
        VerificationError: a logit differs in a bit.
    """
    made, bundle = files.integers[method], files.work / f"bundle-{method}"
    build_bundle(made.onnx, load_board("host"), bundle, golden=files.inputs)
    run = Session(bundle, threads=files.threads).run
    logits = np.concatenate([run(x) for x in files.inputs])
    if not np.array_equal(logits, made.logits):
        wrong = int((logits != made.logits).any(axis=1).sum())
        raise VerificationError(f"{wrong} of {len(logits)} inputs have other logits than ONNX Runtime on {method}.onnx")
    return run


def torch_eager(files: Files) -> Runtime:
    """Runs the network as spikingjelly does."""
    model, timesteps = files.network.checkpoint.model, files.metadata.timesteps

    def run(x: Frames) -> NDArray[np.float32]:
        frames = torch.from_numpy(x)
        frames = frames.expand(timesteps, 1, *x.shape[1:]) if files.metadata.static_input else frames
        with torch.inference_mode():
            return forward_logits(model, frames).numpy()

    return run


def ort(path: Path, threads: int) -> Runtime:
    """Loads a file into ONNX Runtime with every graph optimization."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # threads that spin on after a run would steal time from the next runtime
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,), (output,) = (each.name for each in session.get_inputs()), (each.name for each in session.get_outputs())
    return lambda x: np.asarray(session.run([output], {name: x})[0])


def ort_int8(files: Files) -> Runtime:
    """Quantizes the unrolled file with ONNX Runtime's own tool and loads it."""
    return ort(quantized(files), files.threads)


def quantized(files: Files) -> Path:
    """Writes the unrolled file with int8 weights per channel and uint8 activations, as QDQ; once.

    The layers with weights and the attention are quantized; membrane potentials stay float32, as rounding them to
    8 bits would change which neurons fire.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, Frames]] = ({files.metadata.input.name: x} for x in files.inputs)

        def get_next(self) -> dict[str, Frames] | None:
            return next(self.feeds, None)

    path = files.work / "qdq.onnx"
    if not path.exists():
        prepared = files.work / "prepared.onnx"
        quant_pre_process(files.unrolled, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return path


def openvino(path: Path, threads: int, precision: str) -> Runtime:
    """Loads a file into OpenVINO.

    Args:
        path: a file of standard operators.
        threads: of the inference.
        precision: ``f32`` or ``bf16``, of what is not quantized in the file.

    Raises:
        UnavailableError: OpenVINO is not installed, or this CPU has no such precision.
    """
    try:
        import openvino as ov
    except ImportError:
        raise UnavailableError("OpenVINO is not installed (pip install -r benchmarks/requirements.txt)") from None
    core = ov.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision.upper() not in {"F32" if each == "FP32" else each for each in capabilities}:
        raise UnavailableError(f"OpenVINO has no {precision} on this CPU, only {', '.join(capabilities)}")
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    request = compiled.create_infer_request()
    return lambda x: np.array(request.infer({0: x})[0])


def loaders(files: Files) -> dict[str, Callable[[], Runtime]]:
    """Returns for every variant of every runtime what loads it, by the name of its samples."""
    threads = files.threads
    return {
        "svitkit_fp32": lambda: svitkit_fp32(files),
        "svitkit_int8": lambda: svitkit_integer(files, "int8"),
        "svitkit_int4": lambda: svitkit_integer(files, "int4"),
        "torch": lambda: torch_eager(files),
        "ort_fp32_scan": lambda: ort(files.onnx, threads),
        "ort_fp32_unrolled": lambda: ort(files.unrolled, threads),
        "ort_int8": lambda: ort_int8(files),
        "openvino_f32": lambda: openvino(files.unrolled, threads, "f32"),
        "openvino_bf16": lambda: openvino(files.unrolled, threads, "bf16"),
        "openvino_int8": lambda: openvino(quantized(files), threads, "f32"),
        "ncnn": _ncnn,
    }


def load(files: Files) -> tuple[dict[str, Runtime], dict[str, str]]:
    """Loads every runtime that can run the network.

    Returns:
        Name -> runtime, and name -> why it cannot for all others.
    """
    runtimes: dict[str, Runtime] = {}
    reasons: dict[str, str] = {}
    for name, loader in loaders(files).items():
        try:
            runtimes[name] = loader()
            runtimes[name](files.inputs[0])
        except Exception as error:  # a peer may fail in any way; the figure is then null and this its reason
            runtimes.pop(name, None)
            reasons[name] = first_line(error)
    return runtimes, reasons


def first_line(error: Exception) -> str:
    """Returns what an error says in one line, as the reason for a missing figure."""
    line = next(iter(str(error).strip().splitlines()), "")[:300]
    return line if isinstance(error, UnavailableError) else f"{type(error).__name__}: {line}"


def _ncnn() -> Any:
    raise UnavailableError("ncnn has no layers that compare and select: its converter leaves torch.ge and torch.where")
