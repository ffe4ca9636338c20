from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from svitkit.errors import ConfigError, VerificationError
from svitkit.runtime.glibc import check_glibc, glibc_floor
from tests.runtime import bundles


def test_a_binary_for_a_newer_glibc_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text("#include <pthread.h>\nvoid* f(void) { return (void*)pthread_create; }\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{bundles.HOST}.2.34", "-O2", "-fPIC", "-shared"]
    subprocess.run([*command, str(tmp_path / "f.c"), "-o", str(tmp_path / "f.so")], check=True)

    assert glibc_floor(tmp_path / "f.so") == "2.34"
    with pytest.raises(VerificationError, match=r"f\.so needs glibc 2\.34, boards have 2\.27"):
        check_glibc([tmp_path / "f.so"])


def test_the_glibc_floor_of_what_is_no_program_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="no ELF file"):
        glibc_floor(tmp_path / "text")
    with pytest.raises(ConfigError, match="cannot read"):
        glibc_floor(tmp_path / "missing")
