"""ONNX's backend node tests, for the operators that svitkit's files have, through importer, kernels and ``svit-run``.

Every case becomes a file such as ``svitkit export`` writes: inputs behind the first are initializers, defaults are
spelled out, each output is a network of its own. What passes and what is refused stands in ``node_suite.txt``:

    python -m tests.runtime.node_suite        writes the list again, after a change that is meant
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner as OnnxRunner

from svitkit.boards.board import Board, load_board
from svitkit.boards.transports import Transport, open_transport
from svitkit.errors import SvitError
from svitkit.manifest import METADATA_KEY, ModelMetadata, Normalization, TensorSpec, metadata_json
from svitkit.onnx_check import ALLOWED_OPS
from svitkit.onnx_lif import IR_VERSION, ONNX_OPSET
from svitkit.runtime.bench.runner_process import check_end
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import compile_kernels, lower_network
from svitkit.runtime.program import Program, to_text, weight_bytes
from svitkit.runtime.toolchain import build_runner

LIST = Path(__file__).with_suffix(".txt")
PASS = "pass"
TIMEOUT_S = 60.0
REASON_LETTERS = 110
Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """One output of a case, translated for a board."""

    program: Program
    x: Array
    wanted: Array


@cache
def cases() -> dict[str, TestCase]:
    """The cases whose operators all are ones that svitkit's files may have, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases are about overflow
        every = load_model_tests(kind="node")
    return {case.name: case for case in every if operators(case) <= ALLOWED_OPS}


def operators(case: TestCase) -> set[str]:
    """Operators of a case, those of other domains with their domain."""
    return {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in case.model.graph.node}


def tensor(value: Any) -> Array | None:
    """What a case has as input or output; None where that is no tensor."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def as_exported(case: TestCase, inputs: Sequence[Array], output: int) -> onnx.ModelProto:
    """Writes one output of a case as ``svitkit export`` would."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = IR_VERSION
    model.opset_import[0].version = ONNX_OPSET
    names = [value.name for value in model.graph.input]
    model = shape_inference.infer_shapes(model)
    given, made = list(model.graph.input), list(model.graph.output)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in zip(names[1:], inputs[1:], strict=False)
    )
    del model.graph.input[1:], model.graph.output[:]
    model.graph.output.append(made[output])
    told = {value.name for value in (*made, *model.graph.value_info)}
    model.graph.value_info.extend(value for index, value in enumerate(made) if index != output)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        spell_out(node, inputs)
        unnamed = [name for name in node.output if name and name not in told]
        assert not unnamed, f"{case.name}: {unnamed} has no shape"
    spec = [
        TensorSpec(name=value.name, shape=tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
        for value in (*given[:1], made[output])
    ]
    metadata = ModelMetadata(
        family=case.name,
        mode="sequence",
        timesteps=1,
        static_input=True,
        input=spec[0],
        output=spec[-1],
        lif_layers=(),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=(),
        parameter_bytes=0,
        original_parameter_bytes=0,
        checkpoint_sha256="0" * 64,
        plan_sha256=None,
        producer="onnx",
    )
    model.metadata_props.add(key=METADATA_KEY, value=metadata_json(metadata))
    return model


def spell_out(node: onnx.NodeProto, inputs: Sequence[Array]) -> None:
    """Adds the attributes that have a default, as exporters write them."""
    given = {attribute.name for attribute in node.attribute}
    window = next((list(each.ints) for each in node.attribute if each.name == "kernel_shape"), None)
    defaults: dict[str, Any] = {}
    if node.op_type in ("Conv", "ConvInteger", "MaxPool", "AveragePool"):
        window = window or list(inputs[1].shape[2:])
        rank = len(window)
        defaults = {"kernel_shape": window, "strides": [1] * rank}
        if node.op_type != "AveragePool":
            defaults["dilations"] = [1] * rank
        if "auto_pad" not in given:
            defaults["pads"] = [0] * (2 * rank)
        if node.op_type.startswith("Conv"):
            defaults["group"] = 1
    elif node.op_type in ("Gather", "ScatterElements"):
        defaults = {"axis": 0}
    elif node.op_type == "TopK":
        defaults = {"axis": -1}
    elif node.op_type == "Transpose":
        defaults = {"perm": list(range(inputs[0].ndim))[::-1]}
    for name, value in defaults.items():
        if name not in given:
            node.attribute.append(helper.make_attribute(name, value))


def networks(case: TestCase, board: Board, folder: Path) -> Iterator[Network]:
    """Translates every output of a case for a board.

    Raises:
        SvitError: something of it is refused.
    """
    for inputs, outputs in case.data_sets:
        given = [tensor(value) for value in inputs]
        for index, wanted in enumerate(outputs):
            path = folder / "model.onnx"
            path.write_bytes(as_exported(case, given, index).SerializeToString())
            yield Network(lower_network(import_onnx(path), board), given[0], tensor(wanted))


def run_suite(board: Board, folder: Path) -> dict[str, str]:
    """Runs every case on a board.

    Args:
        board: this machine, or an emulated board.
        folder: an empty directory.

    Returns:
        By case ``pass``, ``refused: `` and why, or ``wrong: `` and what. All that is not refused is compiled into one
        library.
    """
    found: dict[str, str] = {}
    translated: dict[str, list[Network]] = {}
    for name, case in sorted(cases().items()):
        try:
            translated[name] = list(networks(case, board, folder))
            found[name] = PASS
        except SvitError as error:
            found[name] = f"refused: {reason(error)}"
    bundles = link(translated, board, folder)
    with open_transport(board) as transport:
        for name, paths in bundles.items():
            case, wanted = cases()[name], [network.wanted for network in translated[name]]
            try:
                got = [run(transport, *pair) for pair in zip(paths, translated[name], strict=True)]
                OnnxRunner.assert_similar_outputs(wanted, got, case.rtol, case.atol, model_dir=name)
            except (AssertionError, SvitError) as error:
                found[name] = f"wrong: {str(error).strip()}"
    return found


def run(transport: Transport, bundle: Path, network: Network) -> Array:
    """Runs one network, and gives what it computes in the shape that is wanted."""
    (bundle / "input.bin").write_bytes(np.ascontiguousarray(network.x, "<f4").tobytes())
    command = [bundle / "svit-run", bundle, "--input", bundle / "input.bin", "--output", bundle / "output.bin"]
    command += ["--count", 1, "--warmup", 0, "--repeat", 0]
    check_end(transport.run([str(word) for word in command], TIMEOUT_S))
    got = np.fromfile(bundle / "output.bin", "<f4")
    return got.reshape(network.wanted.shape) if got.size == network.wanted.size else got


def link(translated: dict[str, list[Network]], board: Board, folder: Path) -> dict[str, list[Path]]:
    """Compiles the programs into one library, and writes a bundle for each that has it as its own."""
    programs = {f"{name}_{at}": each.program for name, every in translated.items() for at, each in enumerate(every)}
    functions: dict[str, Any] = {}
    for name, program in programs.items():
        functions |= {f"{name}_{symbol}": function for symbol, function in program.functions.items()}
        program.calls = [replace(call, symbol=f"{name}_{call.symbol}") for call in program.calls]
    first = next(iter(programs.values()))
    compile_kernels(Program(first.input, first.output, functions=functions), board, folder / "model.so")
    runner = build_runner(board.triple)
    for name, program in programs.items():
        bundle = folder / name
        bundle.mkdir()
        plan = plan_memory(program)
        (bundle / "program.txt").write_text(to_text(program, plan))
        (bundle / "weights.bin").write_bytes(weight_bytes(program, plan))
        (bundle / "model.so").symlink_to(folder / "model.so")
        (bundle / "svit-run").symlink_to(runner.svit_run)
    return {name: [folder / f"{name}_{at}" for at in range(len(every))] for name, every in translated.items()}


def reason(error: SvitError) -> str:
    """The first sentence of an error, without the file's name."""
    text = str(error).splitlines()[0].partition("model.onnx")[2].lstrip(": ") or str(error)
    text = text.split(". ")[0].rstrip(".")
    return text if len(text) <= REASON_LETTERS else f"{text[:REASON_LETTERS]}..."


def read_list() -> dict[str, str]:
    """What is expected of every case."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)


def write_list(found: dict[str, str]) -> str:
    """Writes what was found as what is expected from now on; returns its first line."""
    wrong = [f"{name} {what}" for name, what in found.items() if what.startswith("wrong")]
    if wrong:
        raise SystemExit("\n".join(["nothing is written: a wrong result is a bug", *wrong]))
    passed = sum(what == PASS for what in found.values())
    head = (
        f"# onnx {onnx.__version__}: {passed} of {len(found)} cases pass. Written by python -m tests.runtime.node_suite"
    )
    LIST.write_text("\n".join([head, *(f"{name} {what}" for name, what in sorted(found.items()))]) + "\n")
    return head


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        print(write_list(run_suite(load_board("host"), Path(scratch))))
