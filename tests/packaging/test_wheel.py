from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("boards", "compress", "export", "runtime", "cmake")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], list[str]]:
    """Builds sdist, then the wheel from the sdist, and returns the names of the files in each."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
        assert all(member.isfile() for member in members), "an sdist with links unpacks differently everywhere"
        in_sdist = {member.name.partition("/")[2] for member in members}
    with zipfile.ZipFile(wheel) as archive:
        return in_sdist, archive.namelist()


def tracked(*folders: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.splitlines() if not (ROOT / name).is_symlink()}


def test_the_wheel_holds_every_file_of_the_package_and_of_the_stages_once(distributions):
    names = [name for name in distributions[1] if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    expected = tracked("svitkit") | {f"svitkit/{name}" for name in tracked(*STAGES)}
    assert expected <= set(names)


def test_the_wheel_puts_nothing_beside_the_package(distributions):
    assert {name.partition("/")[0].partition("-")[0] for name in distributions[1]} == {"svitkit"}


@pytest.mark.parametrize(
    "name",
    [
        "svitkit/py.typed",
        "svitkit/boards/qemu-cortex-a72.toml",
        "svitkit/boards/cpus.toml",
        "svitkit/runtime/runner/svit.h",
        "svitkit/runtime/runner/CMakeLists.txt",
        "svitkit/cmake/CMakePresets.json",
        "svitkit/zoo/digits-spikformer/model.safetensors",
        "svitkit/zoo/digits-spikformer/svit.json",
    ],
)
def test_the_wheel_holds_the_data_that_a_stage_reads(name, distributions):
    assert name in distributions[1]


def test_the_wheel_carries_licence_and_entry_point(distributions):
    metadata = [name.partition(".dist-info/")[2] for name in distributions[1]]
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA"} <= set(metadata)


def test_the_sdist_holds_what_the_wheel_is_made_from_and_how_to_check_it(distributions):
    wanted = {"pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "README.md", "scripts/check"}
    assert wanted | tracked("svitkit", *STAGES) <= distributions[0]


def test_every_link_of_the_package_points_to_a_folder_of_the_repository():
    for stage in STAGES:
        link = ROOT / "svitkit" / stage
        assert link.is_symlink(), f"{link} must be a link: the folder itself is {stage}/"
        assert link.readlink() == Path("..") / stage
        assert link.is_dir()
