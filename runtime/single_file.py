"""One static program that holds a network: kernels, weights, golden inputs and svit-run. It runs on any Linux.

The files of a bundle are sections of the program, ``.svit.manifest.json`` and so on: they are mapped, not copied, and
can be read out of it (:mod:`svitkit.parts`). musl's C library and zig's C++ library are linked in; nothing is loaded at
run time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svitkit.boards.board import Board
from svitkit.errors import ConfigError
from svitkit.files import staged_file
from svitkit.manifest import MANIFEST_NAME, Manifest, write_manifest
from svitkit.parts import SECTION
from svitkit.runtime.build import make_manifest, write_parts
from svitkit.runtime.golden import check_golden_inputs
from svitkit.runtime.pipeline import compile_network
from svitkit.runtime.toolchain import archive_objects, link_program

PARTS = ("golden_input.bin", "golden_output.bin", MANIFEST_NAME, "program.txt", "weights.bin")
_PAGE_BYTES = 4096


def build_single_file(
    onnx_path: Path, board: Board, out: Path, *, golden: NDArray[np.float32], stores_sparse: bool = True
) -> Manifest:
    """Compiles an exported network for a board into one program; see :func:`svitkit.runtime.build.build_bundle`.

    The same file, board and golden inputs give the same bytes.

    Args:
        onnx_path: a file that ``svitkit export`` wrote.
        board: the board to build for.
        out: the program; an existing file is replaced once the new one is whole.
        golden: (N, *input shape) float32, inputs of the check on the board.
        stores_sparse: whether weights of which most are 0 are stored without zeros.

    Raises:
        ConfigError: the file is damaged, the golden inputs have the wrong shape, or there is a directory at ``out``.
        UnsupportedError: the network holds an operator that has no kernel.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a directory, and --single-file writes a file. Give another -o, or remove it.")
    with tempfile.TemporaryDirectory(prefix="svitkit-") as work:
        parts, code = Path(work) / "parts", Path(work) / "code"
        parts.mkdir()
        code.mkdir()
        compiled = compile_network(
            onnx_path, board, code / "kernels.a", stores_sparse=stores_sparse, linker=archive_objects
        )
        check_golden_inputs(compiled.graph.metadata, golden)
        write_parts(compiled, onnx_path, board, parts, golden)
        manifest = make_manifest(compiled, board, parts, golden_count=len(golden), glibc_floor=None)
        write_manifest(parts, manifest)
        symbols = {call.symbol for call in compiled.program.calls}
        link_single_file(parts, code / "kernels.a", symbols, out, board.triple)
    return manifest


def link_single_file(parts: Path, kernels: Path, symbols: Iterable[str], out: Path, triple: str) -> None:
    """Links the parts of a network into one program.

    Args:
        parts: a directory with the files of ``PARTS``.
        kernels: an archive of machine code for ``triple``; ``network.S`` and ``network.c`` are written beside it.
        symbols: the functions in it that the program calls.
        out: the program to write.
        triple: of the board.
    """
    (kernels.parent / "network.S").write_text(_assembly(parts), encoding="utf-8")
    (kernels.parent / "network.c").write_text(_table(sorted(symbols)), encoding="utf-8")
    with staged_file(out) as staged:
        link_program(kernels.parent, kernels, staged, triple)


def _assembly(parts: Path) -> str:
    """Every part as a read-only section: mapped from the file, and shared between processes."""
    lines = []
    for number, name in enumerate(PARTS):
        path = str(parts / name).replace("\\", "\\\\").replace('"', '\\"')
        lines += [
            f'.section {SECTION}{name}, "a", %progbits',
            f".balign {_PAGE_BYTES if name == 'weights.bin' else 1}",
            *(f".globl {label}\n.hidden {label}" for label in (f"svit_part_{number}", f"svit_part_{number}_end")),
            f'svit_part_{number}: .incbin "{path}"',
            f"svit_part_{number}_end:",
        ]
    return "\n".join([*lines, '.section .note.GNU-stack, "", %progbits']) + "\n"


def _table(symbols: Sequence[str]) -> str:
    """What ``linked_network.h`` declares: names and places of the parts and of the kernels."""
    numbers = range(len(PARTS))
    return "\n".join(
        [
            '#include "linked_network.h"',
            *(f"extern const unsigned char svit_part_{n}[], svit_part_{n}_end[];" for n in numbers),
            *(f"int __tvm_ffi_{name}(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);" for name in symbols),
            "const char* svit_kernel_error(void);",
            "static const svit_linked_file files[] = {",
            *(f'  {{"{name}", svit_part_{n}, svit_part_{n}_end}},' for n, name in enumerate(PARTS)),
            "};",
            "static const svit_linked_kernel kernels[] = {",
            *(f'  {{"{name}", __tvm_ffi_{name}}},' for name in symbols),
            "};",
            f"static const svit_linked_network network = {{files, {len(PARTS)}, kernels, {len(symbols)}, "
            "svit_kernel_error};",
            "const svit_linked_network* svit_get_linked_network(void) { return &network; }",
            "",
        ]
    )
