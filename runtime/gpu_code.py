"""Machine code for GPUs: PTX, which the CUDA driver of a board compiles, or OpenCL C.

PTX comes out of TVM's LLVM and needs no CUDA toolkit. It is of the oldest version that knows the architecture, or 6.0
(CUDA 9), so that the drivers of all JetPacks that we know of take it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from svitkit.errors import UnsupportedError
from svitkit.runtime.program import GpuTarget, Program

# Rounds products before they are added, as IEEE 754 and ONNX Runtime do.
_OPENCL_HEADER = "#pragma OPENCL FP_CONTRACT OFF\n"
_HALF_HEADER = re.compile(r"#ifdef cl_khr_fp16\n.*?#endif\n", re.DOTALL)
_HELPER = re.compile(r"\t// \.weak.*?\n\.weak \.func .*?\n\{.*?\n\}\n", re.DOTALL)
# LLVM writes PTX 6.0 for it, the first version with the vote of a warp that all architectures have. Kernels use no
# instruction that came with it, so that the same PTX does for older ones.
_VOLTA = "sm_70"
_DEVICE_LIBRARY = Path(__file__).resolve().parent / "kernels" / "device_functions.ll"


def compile_gpu(program: Program, triple: str) -> str:
    """Compiles a program's kernels, and notes the order of their parameters in the program.

    Args:
        program: of a GPU.
        triple: GNU triple of the board's CPU.

    Returns:
        OpenCL C or PTX.

    Raises:
        UnsupportedError: a kernel calls a function that no GPU has.
    """
    from tvm.tirx.build import codegen_build

    assert program.gpu is not None
    module, target = _device_module(program, triple)
    for variable, function in module.functions.items():
        symbol = variable.name_hint.removesuffix("_kernel")
        program.parameters[symbol] = tuple(_argument(program, symbol, each.name) for each in function.params)
    code = codegen_build(module, target)
    if program.gpu.api == "opencl":
        return _OPENCL_HEADER + _rename(_HALF_HEADER.sub("", code.inspect_source("")))
    return _rename(_as_entries(code.inspect_source("ptx"), program.gpu.architecture or _VOLTA))


def _device_module(program: Program, triple: str) -> tuple[Any, Any]:
    """The kernels as TVM lowers them, without the functions that would launch them, and their target."""
    import tvm
    from tvm.tirx.build import split_host_device_mods

    assert program.gpu is not None
    kind = _target(program.gpu)
    target = tvm.target.Target(kind, host=tvm.target.Target({"kind": "llvm", "mtriple": triple}))
    if program.gpu.api == "cuda":
        library = str(_DEVICE_LIBRARY)
        tvm.register_global_func("tvm_callback_libdevice_path", lambda architecture: library, override=True)
    functions = {name: function.with_attr("global_symbol", name) for name, function in program.functions.items()}
    module = tvm.tirx.transform.BindTarget(target)(tvm.IRModule(functions))
    pipeline, _, finalize = tvm.tirx.get_default_tir_pipeline(target)
    _, devices = split_host_device_mods(pipeline(module))
    ((device_target, device_module),) = devices.items()
    return finalize()(device_module), device_target


def _target(gpu: GpuTarget) -> dict[str, Any]:
    if gpu.architecture is None:
        return gpu.tvm_target()
    return {**gpu.tvm_target(), "mcpu": max(gpu.architecture, _VOLTA, key=_number)}


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))


def _argument(program: Program, symbol: str, parameter: str) -> int:
    """Which argument of a function a parameter of its kernel is."""
    names = [each.name for each in program.functions[symbol].params]
    return names.index(parameter.removesuffix("_ptr"))


def _rename(code: str) -> str:
    """Calls kernels by their symbols; TVM appends a word."""
    return re.sub(r"\b(\w+_\d+)_kernel\b", r"\1", code)


def _as_entries(ptx: str, architecture: str) -> str:
    """Makes kernels of the functions, and arithmetic that rounds after every operation.

    LLVM 22 no longer reads the annotation by which TVM marks kernels. An operation without a rounding mode may be
    joined with another one into a single rounding.
    """
    missing = re.findall(r"\.extern \.func .*?(\w+)\n\(", ptx)
    if missing:
        raise UnsupportedError(
            f"kernels call {', '.join(sorted(set(missing)))}, which {_DEVICE_LIBRARY.name} does not define. Define it."
        )
    kernels = _HELPER.sub("", ptx).replace(".visible .func ", ".visible .entry ")
    kernels = re.sub(r"^\.target sm_\d+$", f".target {architecture}", kernels, flags=re.MULTILINE)
    return re.sub(r"\b(add|sub|mul)\.f32\b", r"\1.rn.f32", kernels)
