"""libsvit under AddressSanitizer and UndefinedBehaviorSanitizer, in a process of its own."""

from __future__ import annotations

import atexit
import importlib.util
import os
import resource
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from svitkit.errors import ConfigError
from tests.runtime import bundles

FUZZ = Path(__file__).resolve().parent
RUNNER = FUZZ.parents[1] / "runtime" / "runner"
SOURCES = (
    *("contents.cc", "cpu_features.cc", "cpu_player.cc", "cuda.cc", "driver.cc", "frames.cc", "gpu_player.cc"),
    *("line_parser.cc", "mapping.cc", "no_network.cc", "opencl.cc", "opencl_errors.cc", "player.cc", "pool.cc"),
    *("program.cc", "session.cc", "source.cc", "svit.cc"),
)
LOAD_FAILED = 2
COMPILER = shutil.which("g++") or shutil.which("clang++")
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


@cache
def build() -> tuple[Path, Path]:
    """Compiles the loader and a bundle for this machine.

    Returns:
        The program, and the bundle.
    """
    assert COMPILER is not None
    folder = Path(mkdtemp(prefix="svitkit-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = importlib.util.find_spec("tvm_ffi")
    assert found is not None
    assert found.origin is not None
    program = folder / "load_program"
    command = [COMPILER, "-std=c++17", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += ["-Wl,--wrap=mmap", '-DSVIT_VERSION="fuzz"', f"-I{RUNNER}"]
    command += ["-isystem", str(Path(found.origin).parent / "include"), str(FUZZ / "load_program.cc")]
    command += [*(str(RUNNER / name) for name in SOURCES), "-o", str(program), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return program, bundles.make_bundle(folder / "bundle", bundles.HOST)


@cache
def _process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [build()[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **OPTIONS},
        preexec_fn=_unlimited,
    )


def _unlimited() -> None:
    """AddressSanitizer reserves terabytes of addresses; the program itself limits what it maps."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def load(content: bytes, folder: Path) -> None:
    """Loads a bundle with this program, and runs it once where that succeeds.

    Raises:
        ConfigError: libsvit refuses the program.
        AssertionError: it died.
    """
    _, bundle = build()
    (folder / "program.txt").write_bytes(content)
    if not (folder / "model.so").exists():
        (folder / "model.so").symlink_to(bundle / "model.so")
    sparse = bytes([0x7F]).ljust(64, b"\0") + bundles.WEIGHTS[:7].tobytes()
    (folder / "weights.bin").write_bytes(sparse if b"expand" in content else bundles.WEIGHTS.tobytes())
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    line = process.stdout.readline().split()
    if len(line) != 2:
        _process.cache_clear()
        raise AssertionError(f"libsvit died with status {process.wait()}: {' '.join(line)}")
    if int(line[0]) == LOAD_FAILED:
        raise ConfigError("refused")
    assert int(line[0]) == 0
