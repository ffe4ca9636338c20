"""Machine code for GPUs that no GPU is needed to check: PTX, what NVIDIA's assembler makes of it, and OpenCL C."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm.script.ir_builder import tirx as T

from svitkit.boards.board import load_board
from svitkit.boards.devices import board_gpus
from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.runtime.gpu_code import compile_gpu
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.kernels.emit import function, put, shared_nest
from svitkit.runtime.kernels.launch import Api, for_gpu
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import lower_network
from svitkit.runtime.program import GpuTarget, Program, to_text
from svitkit.runtime.view import PACKED
from tests.runtime import bundles
from tests.runtime.family_networks import FAMILIES, Network
from tests.runtime.gpu_playing import lower_for_gpu
from tests.runtime.playing import graph, node

JETSONS = {name: gpu for name, gpu in board_gpus().items() if gpu.architecture is not None}
ARCHITECTURES = sorted({gpu.architecture for gpu in JETSONS.values() if gpu.architecture})
# Newest PTX version that a release of CUDA reads: PTX ISA, section "Release Notes".
PTX = {"10.0": (6, 3), "10.1": (6, 4), "10.2": (6, 5), "11.0": (7, 0), "11.4": (7, 4), "12.2": (8, 2)}
ENTRY = re.compile(r"\.visible \.entry (\w+)\(\n?(.*?)\)", re.DOTALL)
ORIN = "sm_87"


def tool(package: str, name: str) -> Path:
    """A program of NVIDIA's that PyPI has for x86-64; the test is skipped where it is not installed."""
    nvidia = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in nvidia.submodule_search_locations or ()] if nvidia else []
    found = [path for folder in folders for path in folder.glob(f"*/bin/{name}")]
    if not found:
        pytest.skip(f"no {name}: pip install {package}, which there is for x86-64 Linux")
    return found[0]


def assemble(ptx: str, architecture: str, folder: Path) -> tuple[Path, str]:
    """Returns the machine code, and what the assembler says about registers."""
    ptxas = tool("nvidia-cuda-nvcc-cu12==12.9.86", "ptxas")
    source, cubin = folder / "kernels.ptx", folder / "kernels.cubin"
    source.write_text(ptx)
    done = subprocess.run(
        [ptxas, "-v", f"-arch={architecture}", source, "-o", cubin], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return cubin, done.stderr


@pytest.fixture(scope="module")
def compiled(family_network: Callable[[str], Network]) -> Callable[[str, str], tuple[Program, str]]:
    """Compiles a family's network for an architecture, once."""
    made: dict[tuple[str, str], tuple[Program, str]] = {}

    def make(family: str, architecture: str) -> tuple[Program, str]:
        if (family, architecture) not in made:
            name = next(name for name, gpu in JETSONS.items() if gpu.architecture == architecture)
            board, target = load_board(name), GpuTarget(api="cuda", architecture=architecture, precision="fp16")
            program = lower_network(import_onnx(family_network(family).onnx), board, gpu=target)
            made[family, architecture] = program, compile_gpu(program, board.triple)
        return made[family, architecture]

    return make


def entries(ptx: str) -> dict[str, int]:
    """Kernels with the number of their parameters."""
    return {name: parameters.count(".param") for name, parameters in ENTRY.findall(ptx)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_ptx_is_what_the_oldest_cuda_of_every_jetson_assembles_without_spills(
    family: str, architecture: str, compiled: Callable[[str, str], tuple[Program, str]], tmp_path: Path
) -> None:
    program, ptx = compiled(family, architecture)
    version = re.search(r"^\.version (\d+)\.(\d+)$", ptx, re.MULTILINE)
    assert version is not None
    oldest = [gpu.cuda[0] for gpu in JETSONS.values() if gpu.architecture == architecture and gpu.cuda]
    assert tuple(map(int, version.groups())) <= min(PTX[cuda] for cuda in oldest)
    assert re.findall(r"^\.target (\w+)$", ptx, re.MULTILINE) == [architecture]
    assert not re.search(r"^\s*(\.visible|\.extern|\.weak)?\s*\.func\b", ptx, re.MULTILINE)
    parameters = {symbol: len(order) for symbol, order in program.parameters.items()}
    assert entries(ptx) == parameters
    assert parameters.keys() == {call.symbol for call in program.calls}
    _, said = assemble(ptx, architecture, tmp_path)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert len(spills) == len(parameters)
    assert set(spills) == {("0", "0")}


@pytest.mark.parametrize("family", FAMILIES)
def test_arithmetic_in_ptx_rounds_every_operation_to_nearest(
    family: str, compiled: Callable[[str, str], tuple[Program, str]]
) -> None:
    _, ptx = compiled(family, ORIN)
    operations = set(re.findall(r"\b(?:add|sub|mul|fma|mad|div|rcp|sqrt)(?:\.\w+)*\.f32\b", ptx))
    assert operations
    assert {operation.split(".")[1] for operation in operations} == {"rn"}, operations
    assert ".ftz" not in ptx


def test_orins_machine_code_holds_every_kernel_and_votes_where_spikes_are_packed(
    compiled: Callable[[str, str], tuple[Program, str]], tmp_path: Path
) -> None:
    nvdisasm = tool("nvidia-cuda-nvdisasm", "nvdisasm")
    program, ptx = compiled("spikformer", ORIN)
    cubin, _ = assemble(ptx, ORIN, tmp_path)
    listing = subprocess.run([nvdisasm, cubin], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+)", listing, flags=re.MULTILINE)
    functions = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert functions.keys() == {call.symbol for call in program.calls}
    packing = {program.calls[tap.call].symbol for tap in program.taps if tap.view.buffer.dtype == PACKED}
    assert packing
    voting = {name for name, code in functions.items() if re.search(r"\bVOTEU?\b", code)}
    assert packing <= voting


def scaled_layer(api: Api) -> tuple[Program, str]:
    """An integer layer: a sum, times a scale, plus a bias, and neurons that divide by three."""
    nodes = [
        node("LIF", "input zero", "s", params=LIFParams()),
        node("MatMulInteger", "s w", "sums"),
        node("Cast", "sums", "real", to=1),
        node("Mul", "real scale", "scaled"),
        node("Add", "scaled bias", "current"),
        node("LIF", "current zero", "logits", params=LIFParams(tau=3.0)),
    ]
    constants = {
        "w": np.ones((8, 33), np.int8),
        "scale": np.linspace(0.1, 0.2, 33, dtype=np.float32),
        "bias": np.linspace(0.3, 0.4, 33, dtype=np.float32),
        "zero": np.float32(0),
    }
    network = graph(nodes, input_shape=(4, 1, 6, 8), output_shape=(4, 1, 6, 33), constants=constants)
    program = lower_for_gpu(network, GpuTarget(api=api, architecture="sm_53" if api == "cuda" else None))
    return program, compile_gpu(program, bundles.HOST)


def test_a_product_is_rounded_before_the_bias_is_added() -> None:
    _, ptx = scaled_layer("cuda")
    layer = ptx[ptx.index(".entry event_int8_matmul_lif") :].split(".visible .entry")[0]
    assert "fma" not in layer
    assert "mul.rn.f32" in layer
    assert "add.rn.f32" in layer
    assert "div.rn.f32" in layer


def test_parameters_stand_in_the_program_in_the_order_of_the_kernel() -> None:
    program, source = scaled_layer("opencl")
    lines = [line.split() for line in to_text(program, plan_memory(program)).splitlines()]
    tensors = {words[1]: words[2] for words in lines if words[0] == "tensor"}
    launches = {words[1]: [tensors[number] for number in words[10:]] for words in lines if words[0] == "launch"}
    (name,) = [symbol for symbol in launches if symbol.startswith("event_int8_matmul_lif")]
    (parameters,) = set(re.findall(rf"void {name}\((.*?)\)", source))
    order = re.findall(r"(\w+)_ptr", parameters)
    found = dict(zip(order, launches[name], strict=True))
    assert found.pop("w").startswith("w.columns")
    assert found.items() >= {"x": "s", "scale": "sums.scale", "bias": "sums.bias", "out": "logits"}.items()


def test_a_function_that_no_gpu_has_is_refused_by_name() -> None:
    program, _ = scaled_layer("cuda")
    with for_gpu("cuda") as kernel:

        def body(x: object, out: object) -> None:
            with shared_nest((32,)) as (index,):
                put(out, index, T.exp(x[index]))  # type: ignore[index]

        exponential = function([("x", 32, "float32"), ("out", 32, "float32")], body)
    assert kernel.launch is not None
    program.functions["exp_9"] = exponential
    with pytest.raises(UnsupportedError, match=r"call __nv_expf, which device_functions\.ll does not define"):
        compile_gpu(program, bundles.HOST)
