"""The programs in cmake/examples, built outside of the tree as a user does, here and for an emulated Cortex-A72."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.boards.board import load_board
from svitkit.runtime.sdk import write_sdk
from svitkit.runtime.toolchain import build_runner
from tests.runtime import bundles, echo

QEMU, SYSROOT = shutil.which("qemu-aarch64-static"), Path("/usr/aarch64-linux-gnu")
A72 = (str(QEMU), "-cpu", "cortex-a72", "-L", str(SYSROOT))
BOARDS = {bundles.HOST: "host", bundles.ARM: "raspberry-pi-4"}


def run(*command: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in command], capture_output=True, timeout=300, **options)


def zig(sdk: Path, triple: str) -> list[str]:
    """Settings for the compiler that svitkit uses; stripped, else zig builds another C++ library first."""
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={sdk / 'toolchains' / f'{triple}.cmake'}"
    flags = ["-DCMAKE_C_FLAGS=-O2 -s", "-DCMAKE_CXX_FLAGS=-O2 -s"]
    return [toolchain, f"-DPython3_EXECUTABLE={sys.executable}", *flags]


def build(folder: Path, sdk: Path, settings: list[str]) -> Path:
    """Builds the examples of an SDK and returns where the programs are."""
    import ninja

    found = [f"-DCMAKE_PREFIX_PATH={sdk}", f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR) / 'ninja'}"]
    cmake = [sys.executable, "-P", "-m", "cmake"]
    configure = ["-S", sdk / "examples", "-B", folder / "b", "-G", "Ninja", *found, *settings]
    for step in (configure, ["--build", folder / "b"]):
        done = run(*cmake, *step)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        assert b"warning" not in done.stdout
    return folder / "b"


@pytest.fixture(
    scope="module", params=["zig", "zig for aarch64", "static for aarch64", "the compiler of this computer"]
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """The programs, a bundle that they run, and what stands before them."""
    triple = bundles.ARM if "aarch64" in request.param else bundles.HOST
    if triple != bundles.HOST and (QEMU is None or not SYSROOT.is_dir()):
        pytest.skip("needs qemu-user-static and libc6-arm64-cross")
    if "this computer" in request.param and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("examples")
    sdk = folder / "my sdk"
    write_sdk(load_board(BOARDS[triple]), sdk)
    settings = [] if "this computer" in request.param else zig(sdk, triple)
    if "static" in request.param:
        settings.append("-DLINK_STATIC=ON")
    programs = build(folder, sdk, settings)
    if "static" in request.param:
        shutil.rmtree(sdk)
    prefix = [] if triple == bundles.HOST else [*A72, "-E", f"LD_LIBRARY_PATH={sdk / 'lib'}"]
    return programs, echo.make_bundle(folder / "bundle", triple), prefix


def frame(seed: int) -> NDArray[np.uint8]:
    """(3, 16, 16) uint8."""
    return np.random.default_rng(seed).integers(0, 256, echo.SHAPE, np.uint8)


def pixels(planes: NDArray[np.uint8]) -> bytes:
    return planes.transpose(1, 2, 0).tobytes()


def test_classify_names_the_best_classes_of_an_image(place: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    programs, bundle, prefix = place
    image = tmp_path / "image.ppm"
    image.write_bytes(b"P6\n# drawn by hand\n16 16\n255\n" + pixels(frame(1)))
    done = run(*prefix, programs / "classify", bundle, image)
    assert (done.returncode, done.stderr) == (0, b"")
    logits = echo.trained(frame(1), echo.metadata())[0]
    best = np.argsort(-logits, kind="stable")[:3]
    assert done.stdout.decode().splitlines() == [f"{i}\tnumber {i}\t{logits[i]:.6g}" for i in best]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"P5 16 16 255\n" + bytes(256), b"16x16 pixels with 3 channel(s)"),
        (b"P6 16 15 255\n" + bytes(768), b"16x16 pixels"),
        (b"P6 16 16 255\n" + bytes(767), b"wanted a whole PGM or PPM image"),
        (b"P6 16 16 65535\n" + bytes(768), b"of 8 bits"),
        (b"", b"wanted a whole"),
    ],
)
def test_classify_refuses_another_image(
    place: tuple[Path, Path, list[str]], tmp_path: Path, content: bytes, words: bytes
) -> None:
    programs, bundle, prefix = place
    (tmp_path / "image.pnm").write_bytes(content)
    done = run(*prefix, programs / "classify", bundle, tmp_path / "image.pnm")
    assert (done.returncode, done.stdout) == (1, b"")
    assert words in done.stderr


def test_stream_follows_frames(place: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    programs, bundle, prefix = place
    frames = [frame(seed) for seed in range(3)]
    done = run(*prefix, programs / "stream", bundle, input=b"".join(map(pixels, frames)))
    assert (done.returncode, done.stderr) == (0, b"")
    average, wanted = np.zeros(echo.SIZE, np.float32), []
    for planes in frames:
        average = np.float32(0.9) * average + (1 - np.float32(0.9)) * echo.trained(planes, echo.metadata())[0]
        wanted.append(f"{average.argmax()}\tnumber {average.argmax()}")
    assert [line.rpartition("\t")[0] for line in done.stdout.decode().splitlines()] == wanted


def test_a_missing_bundle_is_a_sentence(place: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    programs, _, prefix = place
    for program in ("classify", "stream"):
        done = run(*prefix, programs / program, tmp_path / "none", *(["x"] if program == "classify" else []), input=b"")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"cannot open ")


@pytest.mark.parametrize(("compiler", "standard"), [("cc", "c99"), ("cc", "c11"), ("c++", "c++11")])
def test_the_header_is_plain_c_and_plain_cpp(tmp_path: Path, compiler: str, standard: str) -> None:
    source = "x.c" if compiler == "cc" else "x.cc"
    (tmp_path / source).write_text("#include <svit.h>\nint main(void) { return svit_steps(0) != 0; }\n")
    header = build_runner(bundles.HOST).prefix / "include"
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{header}"]
    done = run(sys.executable, "-m", "ziglang", compiler, *flags, "-c", source, "-o", "x.o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
