from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.runtime import toolchain
from svitkit.runtime.glibc import check_glibc, glibc_floor
from svitkit.runtime.toolchain import TRIPLES, build_runner, link_shared
from tests.runtime import bundles


def compile_object(path: Path, source: str, triple: str) -> Path:
    path.with_suffix(".c").write_text(source)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{triple}.2.27", "-O2", "-fPIC", "-c"]
    subprocess.run([*command, str(path.with_suffix(".c")), "-o", str(path)], check=True)
    return path


@pytest.mark.parametrize("triple", TRIPLES)
def test_the_runner_is_small_starts_on_glibc_2_27_and_exports_the_c_api_only(triple: str) -> None:
    files = build_runner(triple)

    check_glibc([files.svit_run, files.libsvit])
    assert files.svit_run.stat().st_size < 480_000
    assert files.libsvit.stat().st_size < 420_000
    symbols = subprocess.run(["nm", "-D", "--defined-only", files.libsvit], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert {"svit_load", "svit_run", "svit_step", "svit_reset", "svit_free", "svit_version"} <= names
    assert all(name.startswith("svit_") for name in names)


def test_a_second_build_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_runner(bundles.HOST)

    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(toolchain, "_build", refuse)
    assert build_runner(bundles.HOST) == first


def test_two_builders_at_once_build_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    started, go_on, builds = threading.Event(), threading.Event(), []

    def build(triple: str, prefix: Path) -> None:
        builds.append(triple)
        started.set()
        assert go_on.wait(30)
        prefix.mkdir()

    monkeypatch.setattr(toolchain, "_build", build)
    threads = [threading.Thread(target=build_runner, args=(bundles.HOST,)) for _ in range(2)]
    threads[0].start()
    assert started.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert builds == [bundles.HOST]


def test_a_failed_build_shows_the_compilers_words_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "runner"
    source.mkdir()
    (source / "CMakeLists.txt").write_text("project(x LANGUAGES NONE)\nmessage(FATAL_ERROR surprise)\n")
    monkeypatch.setattr(toolchain, "_RUNNER", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    with pytest.raises(ConfigError, match="surprise"):
        build_runner(bundles.HOST)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [f".{bundles.HOST}.lock"]


def test_a_change_of_a_source_changes_the_cache_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "runner"
    source.mkdir()
    monkeypatch.setattr(toolchain, "_RUNNER", source)
    monkeypatch.setattr(toolchain, "CMAKE_FOLDER", tmp_path / "cmake")
    keys = set()
    for text in ("int a;", "int b;"):
        (source / "a.cc").write_text(text)
        keys.add(toolchain._build_key())
    assert len(keys) == 2


def test_an_unknown_triple_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'aarch64-linux-gnu'"):
        build_runner("aarch64-linux-gnueabi")


def test_a_missing_build_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "BUILD_PACKAGES", ("no-such-package-here",))
    with pytest.raises(ConfigError, match="pip install no-such-package-here"):
        build_runner(bundles.HOST)


@pytest.mark.parametrize("triple", TRIPLES)
def test_linked_code_needs_no_tvm_library(tmp_path: Path, triple: str) -> None:
    source = "void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char**, int);\n" + (
        "#include <math.h>\nint f(float x) { TVMFFIErrorSetRaisedFromCStrParts(0, 0, 0); return (int)expf(x); }\n"
    )
    output = tmp_path / "model.so"
    link_shared([compile_object(tmp_path / "f.o", source, triple)], output, triple)

    symbols = subprocess.run(["nm", "-D", output], capture_output=True, text=True, check=True).stdout
    assert "TVMFFI" not in symbols
    assert "svit_kernel_error" in symbols
    assert glibc_floor(output) == "2.27"  # expf has a new version since 2.27


def test_code_that_calls_what_no_board_has_is_refused_by_name(tmp_path: Path) -> None:
    item = compile_object(
        tmp_path / "f.o", "int TVMBackendParallelLaunch(); int f() { return TVMBackendParallelLaunch(); }", bundles.HOST
    )
    with pytest.raises(UnsupportedError, match="TVMBackendParallelLaunch"):
        link_shared([item], tmp_path / "model.so", bundles.HOST)


def test_code_that_takes_memory_from_tvms_runtime_is_refused(tmp_path: Path) -> None:
    source = "void* (*__TVMBackendAllocWorkspace)(int); void* f(void) { return __TVMBackendAllocWorkspace(1); }"
    code = compile_object(tmp_path / "kernel.o", source, bundles.HOST)
    with pytest.raises(UnsupportedError, match="__TVMBackendAllocWorkspace, which no board has"):
        link_shared([code], tmp_path / "model.so", bundles.HOST)


def test_an_object_that_is_none_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "f.o").write_text("nothing")
    with pytest.raises(ConfigError, match="linking"):
        link_shared([tmp_path / "f.o"], tmp_path / "model.so", bundles.HOST)
