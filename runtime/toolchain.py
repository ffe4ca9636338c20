"""The cross compiler: builds libsvit and svit-run for a board and links the machine code that TVM makes.

Everything is compiled by the zig of the PyPI package ``ziglang`` against glibc 2.27, so that it starts on every board
since JetPack 4 (Ubuntu 18.04). A cold compiler takes about a minute for a triple, then it is cached.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from svitkit.errors import ConfigError, UnsupportedError, unknown_name
from svitkit.files import staged_directory
from svitkit.runtime.glibc import GLIBC_FLOOR, check_glibc

TRIPLES = ("aarch64-linux-gnu", "x86_64-linux-gnu")
STATIC_TRIPLES = {"aarch64-linux-gnu": "aarch64-linux-musl", "x86_64-linux-gnu": "x86_64-linux-musl"}
"""For each triple, that of programs with everything in them: musl links statically, glibc would not wholly."""
BUILD_PACKAGES = ("ziglang", "cmake", "ninja", "apache-tvm-ffi")

Linker = Callable[[str, Sequence[str]], None]
"""What TVM's ``export_library`` calls with the path of its output and those of object files."""

_ROOT = Path(__file__).resolve().parents[1]
_RUNNER = _ROOT / "runtime" / "runner"
CMAKE_FOLDER = _ROOT / "cmake"
_SOURCE_SUFFIXES = frozenset({".cc", ".h", ".c", ".map", ".txt", ".cmake"})
_ERROR_LINES = 12
_ZIG = (sys.executable, "-m", "ziglang")


@dataclass(frozen=True, kw_only=True)
class RunnerFiles:
    """The installed runner of one triple.

    Attributes:
        prefix: the installed tree; ``find_package(svitkit CONFIG)`` finds it in ``CMAKE_PREFIX_PATH``.
        svit_run: the program that runs on the board.
        libsvit: the shared library behind ``svit.h``.
    """

    prefix: Path
    svit_run: Path
    libsvit: Path


def build_runner(triple: str) -> RunnerFiles:
    """Builds libsvit and svit-run, or takes them from the cache.

    The cache lies in ``$XDG_CACHE_HOME/svitkit/runner``, keyed by the sources and the versions of the build packages.

    Args:
        triple: one of ``TRIPLES``.

    Raises:
        ConfigError: the triple is unknown, a build package is missing, or the build fails; then with its last lines.
        VerificationError: a binary needs a newer glibc than ``GLIBC_FLOOR``.
    """
    _check_triple(triple)
    prefix = _installed(triple)
    return RunnerFiles(prefix=prefix, svit_run=prefix / "bin" / "svit-run", libsvit=prefix / "lib" / "libsvit.so")


def build_archive(triple: str) -> Path:
    """Builds the archive of svit-run that is linked with a network into one static program, or takes it from the cache.

    Args:
        triple: one of ``TRIPLES``; the archive is for the triple that ``STATIC_TRIPLES`` gives it.

    Raises:
        ConfigError: as :func:`build_runner`.
    """
    _check_triple(triple)
    return _installed(STATIC_TRIPLES[triple]) / "lib" / "libsvit-run.a"


def _installed(triple: str) -> Path:
    prefix = _cache_directory() / _build_key() / triple
    if prefix.is_dir():
        return prefix
    with _locked(prefix.with_name(f".{triple}.lock")):
        if not prefix.is_dir():
            _build(triple, prefix)
    return prefix


def link_shared(objects: Sequence[str | Path], output: str | Path, triple: str) -> None:
    """Links machine code into the ``model.so`` that libsvit loads.

    The library needs nothing but the board's libc and libm: the one function of TVM's runtime that kernels call, which
    raises an error, is linked in.

    Args:
        objects: object files for ``triple``.
        output: path of the shared library.
        triple: one of ``TRIPLES``.

    Raises:
        ConfigError: the triple is unknown or an object cannot be linked.
        UnsupportedError: the code calls a function that no board has, such as a function of TVM's runtime.
        VerificationError: the library needs a newer glibc than ``GLIBC_FLOOR``.
    """
    _check_triple(triple)
    command = [*_ZIG, "cc", "-target", f"{triple}.{GLIBC_FLOOR}"]
    command += ["-O2", "-shared", "-fPIC", "-s", "-Wl,-z,defs", "-o", str(output)]
    command += [str(_RUNNER / "kernel_error.c"), *(str(item) for item in objects), "-lm"]
    result = _run(command)
    _check_calls(_runtime_pointers(Path(output)) if result.returncode == 0 else _undefined(result))
    _check_success(result, f"linking {output} for {triple}")
    check_glibc([Path(output)])


def _undefined(result: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(set(re.findall(r"undefined symbol: (\S+)", result.stderr)))


def _check_calls(missing: list[str]) -> None:
    if missing:
        raise UnsupportedError(
            f"the compiled network calls {', '.join(missing)}, which no board has. "
            f"Kernels may use libc and libm only: choose kernels without TVM runtime calls or threads."
        )


def archive_objects(output: str, objects: Sequence[str]) -> None:
    """Puts object files into an archive, to be linked later; a :data:`Linker`."""
    command = [*_ZIG, "ar", "qcD", output, *objects]
    _check_success(_run(command), f"writing {output}")


def link_program(folder: Path, kernels: Path, output: Path, triple: str) -> None:
    """Links svit-run with a network into one static program.

    Args:
        folder: holds ``network.c`` and ``network.S`` (:mod:`svitkit.runtime.single_file`).
        kernels: an archive of machine code.
        output: path of the program.
        triple: one of ``TRIPLES``; the program is for the triple that ``STATIC_TRIPLES`` gives it.

    Raises:
        ConfigError: the triple is unknown or something cannot be linked.
        UnsupportedError: the code calls a function that no board has, such as a function of TVM's runtime.
    """
    archive, target = build_archive(triple), STATIC_TRIPLES[triple]
    # clang by itself: behind 'zig cc' the compiler's cache would keep a copy of the weights
    assemble = [*_ZIG, "clang", "-c", "-target", target, str(folder / "network.S"), "-o", str(folder / "network.o")]
    _check_success(_run(assemble), f"assembling the network for {target}")
    command = [*_ZIG, "cc", "-target", target, "-O2", "-static", "-s", "-o", str(output)]
    command += [f"-I{_RUNNER}", f"-I{_package_directory('tvm_ffi') / 'include'}"]
    command += [str(path) for path in (folder / "network.c", folder / "network.o", kernels)]
    command += [str(_RUNNER / "kernel_error.c"), str(archive), "-lc++", "-lm"]
    result = _run(command)
    _check_calls(_undefined(result))
    _check_success(result, f"linking {output} for {target}")


def _runtime_pointers(library: Path) -> list[str]:
    """Names of the function pointers that TVM's runtime would fill in on loading; without it a call of one crashes."""
    with library.open("rb") as file:
        tables = [s for s in ELFFile(file).iter_sections() if isinstance(s, SymbolTableSection)]
        names = [symbol.name for table in tables for symbol in table.iter_symbols()]
    return sorted({name for name in names if name.startswith("__TVM")})


def shared_linker(triple: str) -> Linker:
    """Returns :func:`link_shared` in the form that TVM's ``export_library(path, fcompile=...)`` calls."""
    _check_triple(triple)

    def fcompile(output: str, objects: Sequence[str]) -> None:
        link_shared(objects, output, triple)

    return fcompile


def _check_triple(triple: str) -> None:
    if triple not in TRIPLES:
        raise unknown_name("triple", triple, TRIPLES)


def _cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "svitkit" / "runner"


def _sources() -> list[Path]:
    files = [*_RUNNER.glob("*"), *(CMAKE_FOLDER / "toolchains").glob("*")]
    return sorted(path for path in files if path.suffix in _SOURCE_SUFFIXES)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"building for a board needs the package {package}. Run: pip install {package}") from None


def _build_key() -> str:
    digest = hashlib.sha256()
    for package in BUILD_PACKAGES:
        digest.update(f"{package} {_version(package)}\n".encode())
    for path in _sources():
        content = path.read_bytes()
        digest.update(f"{path.parent.name}/{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ConfigError(f"cannot write the cache {path.parent}: {error.strerror}. Set XDG_CACHE_HOME.") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _package_directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"building for a board needs the Python package {package}, which cannot be found.")
    return Path(spec.origin).parent


def _build(triple: str, prefix: Path) -> None:
    import ninja

    program = [sys.executable, "-P", "-m", "cmake"]
    with tempfile.TemporaryDirectory(prefix="svit-build-") as scratch, staged_directory(prefix) as staged:
        configure = [*program, "-S", str(_RUNNER), "-B", scratch, "-G", "Ninja", f"--install-prefix={prefix}"]
        settings = {
            "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
            "CMAKE_TOOLCHAIN_FILE": CMAKE_FOLDER / "toolchains" / f"{triple}.cmake",
            "SVIT_ZIG": _package_directory("ziglang") / "zig",
            "SVIT_TVM_FFI_INCLUDE_DIR": _package_directory("tvm_ffi") / "include",
            "CMAKE_CXX_FLAGS": "-O2 -s",  # CMake's checks link too: so they share the C++ library of what is stripped
            "SVIT_SINGLE_FILE": "ON" if triple in STATIC_TRIPLES.values() else "OFF",
        }
        configure += [f"-D{name}={value}" for name, value in settings.items()]
        install = [*program, "--install", scratch, "--prefix", str(staged)]
        for command in (configure, [*program, "--build", scratch], install):
            _check_success(_run(command), f"building the runner for {triple}")
        check_glibc(path for path in (staged / "bin" / "svit-run", staged / "lib" / "libsvit.so") if path.exists())


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def _check_success(result: subprocess.CompletedProcess[str], what: str) -> None:
    if result.returncode == 0:
        return
    lines = (result.stdout + result.stderr).strip().splitlines()[-_ERROR_LINES:]
    raise ConfigError(f"{what} failed with status {result.returncode}:\n" + "\n".join(lines))
