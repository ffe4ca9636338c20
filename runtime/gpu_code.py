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
        return _rename(_HALF_HEADER.sub("", code.inspect_source("")))
    return _rename(finish_ptx(code.inspect_source("ptx"), program.gpu.architecture or _VOLTA))


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


def finish_ptx(ptx: str, architecture: str) -> str:
    """Makes kernels of the functions that TVM's LLVM has written as PTX.

    LLVM 22 no longer reads the annotation by which TVM marks kernels, so that it knows neither that they are entries
    nor that their pointers lead to global memory. Arithmetic gets the rounding mode that forbids to join two operations
    into one rounding; in OpenCL C that is a pragma, which libsvit puts in front.

    Raises:
        UnsupportedError: a kernel calls a function that is not defined.
    """
    missing = re.findall(r"\.extern \.func .*?(\w+)\n\(", ptx)
    if missing:
        raise UnsupportedError(
            f"kernels call {', '.join(sorted(set(missing)))}, which {_DEVICE_LIBRARY.name} does not define. Define it."
        )
    head, *functions = _HELPER.sub("", ptx).split(".visible .func ")
    head = re.sub(r"^\.target sm_\d+$", f".target {architecture}", head, flags=re.MULTILINE)
    kernels = ".visible .entry ".join([head, *(_in_global_memory(function) for function in functions)])
    return re.sub(r"\b(add|sub|mul)\.f32\b", r"\1.rn.f32", kernels)


def _in_global_memory(function: str) -> str:
    """Says of every load and store that it is of global memory, and of loads whether the kernel stores nothing there.

    These go through the read-only cache, the one cache near the cores that Maxwell and Pascal have for global memory.
    """
    parameters = _roots(function)
    stored = [parameters.get(register) for register in re.findall(r"\tst\.[\w.]+ \t\[(%rd\d+)", function)]

    def load(match: re.Match[str]) -> str:
        root = parameters.get(match["pointer"])
        is_constant = root is not None and None not in stored and root not in stored
        return f"\tld.global{'.nc' if is_constant else ''}.{match['rest']}[{match['pointer']}"

    function = re.sub(r"\tld\.(?P<rest>(?!param|local)[\w.]+ \t[^\[\n]*)\[(?P<pointer>%rd\d+)", load, function)
    return re.sub(r"\tst\.(?=[bv])", "\tst.global.", function)


def _roots(function: str) -> dict[str, str]:
    """The parameter that every register with a pointer comes from; left out where there are several."""
    found: dict[str, set[str]] = {}
    for register, parameter in re.findall(r"ld\.param\.b64 \t(%rd\d+), \[(\w+)\];", function):
        found.setdefault(register, set()).add(parameter)
    moves = re.findall(r"\t(?:add\.s64|mov\.b64|selp\.b64) \t(%rd\d+), ([^;]*);", function)
    while True:
        before = sum(len(roots) for roots in found.values())
        for register, sources in moves:
            for source in re.findall(r"%rd\d+", sources):
                found.setdefault(register, set()).update(found.get(source, set()))
        if sum(len(roots) for roots in found.values()) == before:
            return {register: next(iter(roots)) for register, roots in found.items() if len(roots) == 1}
