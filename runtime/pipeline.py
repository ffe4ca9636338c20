"""The path from an exported file to machine code, as one list to read from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svitkit.boards.board import MOST_THREADS, Board
from svitkit.runtime.cost_model import Method, cost_model
from svitkit.runtime.import_onnx import Graph, import_onnx
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.program import GpuTarget, MemoryPlan, Program
from svitkit.runtime.toolchain import Linker, shared_linker
from svitkit.runtime.vector_unit import vector_unit


@dataclass(frozen=True)
class Compiled:
    """A network, its static plan, and where everything lies."""

    graph: Graph
    program: Program
    plan: MemoryPlan


def compile_network(
    onnx_path: Path,
    board: Board,
    library: Path,
    *,
    prefer: Method | None = None,
    stores_sparse: bool = True,
    linker: Linker | None = None,
) -> Compiled:
    """Imports, lowers, plans and compiles a network for a board.

    Args:
        onnx_path: a file that ``svitkit export`` wrote.
        board: the board whose CPU the machine code is for.
        library: where the machine code is written.
        prefer: a method that is taken wherever it can be, instead of the one that costs least.
        stores_sparse: whether weights of which most are 0 are stored without zeros.
        linker: what makes the file of the objects; a shared library if None.
    """
    graph = import_onnx(onnx_path)
    program = lower_network(graph, board, prefer=prefer, stores_sparse=stores_sparse)
    plan = plan_memory(program)
    compile_kernels(program, board, library, linker=linker)
    return Compiled(graph, program, plan)


def lower_network(
    graph: Graph,
    board: Board,
    *,
    prefer: Method | None = None,
    stores_sparse: bool = True,
    gpu: GpuTarget | None = None,
) -> Program:
    """Translates a network for a board's CPU or GPU, without compiling it; see :func:`compile_network`."""
    return lower(
        graph,
        unit=vector_unit(board),
        costs=cost_model(board),
        parts=most_parts(board),
        prefer=prefer,
        stores_sparse=stores_sparse,
        gpu=gpu,
    )


def most_parts(board: Board) -> int:
    """Into how many parts a call is divided at most: threads that a program for the board can run on."""
    return min(board.cores, MOST_THREADS)


def compile_functions(program: Program, board: Board) -> Any:
    """Returns the program's functions as TVM compiles them for the board: a ``tvm.runtime.Executable``."""
    import tvm

    functions = {name: function.with_attr("global_symbol", name) for name, function in program.functions.items()}
    return tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(board.tvm_target()))


def compile_kernels(program: Program, board: Board, library: Path, *, linker: Linker | None = None) -> None:
    """Compiles the program's functions and links them for the board; by default into a shared library.

    The library needs nothing of TVM at run time.
    """
    fcompile = linker or shared_linker(board.triple)
    compile_functions(program, board).export_library(str(library), fcompile=fcompile)
