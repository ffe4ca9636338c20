"""Bytes as input: a network whose logits are its input shows, bit for bit, what libsvit makes of every byte."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.errors import ConfigError
from svitkit.runtime.program_facts import fact_lines
from svitkit.runtime.session import Session
from tests.runtime import bundles
from tests.runtime.echo import SHAPE, make_bundle, metadata, trained, write_program
from tests.runtime.test_runner import failed, svit_run

QEMU, SYSROOT = shutil.which("qemu-aarch64-static"), Path("/usr/aarch64-linux-gnu")
NAMES = ("T-shirt/top", "100 %", "", "größer")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("echo") / "bundle", bundles.HOST)


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "bundle"))


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    """(3, 16, 16) uint8, every byte in every channel."""
    levels = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (3, 1)), axis=1)
    return levels.reshape(SHAPE)


def test_every_byte_becomes_the_number_of_training_bit_for_bit_in_both_layouts(
    built: Path, frame: NDArray[np.uint8]
) -> None:
    with Session(built) as session:
        planes = session.run_frame(frame, layout="chw")
        pixels = session.run_frame(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        floats = session.run(trained(frame, metadata()).reshape(1, *SHAPE))
    assert len(np.unique(floats)) > 256
    np.testing.assert_array_equal(planes.view(np.uint32), trained(frame, metadata()).view(np.uint32))
    np.testing.assert_array_equal(pixels.view(np.uint32), planes.view(np.uint32))
    np.testing.assert_array_equal(floats.view(np.uint32), planes.view(np.uint32))


def test_event_counts_are_the_numbers_themselves_frame_after_frame(bundle: Path, frame: NDArray[np.uint8]) -> None:
    model = metadata(static=False)
    with Session(write_program(bundle, bundles.HOST, model)) as session:
        frames = frame.reshape(2, 3, 8, 16)
        planes = session.run_frame(frames, layout="chw")
        pixels = session.run_frame(frames.transpose(0, 2, 3, 1))
        with pytest.raises(ConfigError, match=r"wanted uint8 \(2, 8, 16, 3\)"):
            session.run_frame(frames[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(planes[0], frame.reshape(-1))
    np.testing.assert_array_equal(pixels, planes)


def test_in_step_mode_a_frame_is_shown_at_every_step_and_frames_one_after_the_other(
    bundle: Path, frame: NDArray[np.uint8]
) -> None:
    model = metadata("step")
    frames = np.stack([frame, 255 - frame])
    with Session(write_program(bundle, bundles.HOST, model)) as session:
        one, two = session.run_frame(frame, layout="chw"), session.run_frame(frames, layout="chw")
    np.testing.assert_array_equal(one, trained(frame, model))
    np.testing.assert_array_equal(two, (trained(frames[0], model) + trained(frames[1], model)) / np.float32(2))


@pytest.mark.parametrize(
    ("x", "layout", "words"),
    [
        (np.zeros(SHAPE, np.uint8), "hwc", r"uint8 \(3, 16, 16\), wanted uint8 \(16, 16, 3\)"),
        (np.zeros((16, 16, 3), np.float32), "hwc", "the input is float32"),
        (np.zeros(SHAPE, np.uint8), "cwh", "Did you mean 'chw'"),
    ],
)
def test_a_wrong_frame_is_a_config_error(built: Path, x: NDArray[np.uint8], layout: str, words: str) -> None:
    with Session(built) as session, pytest.raises(ConfigError, match=words):
        session.run_frame(x, layout=layout)


def test_a_bundle_that_does_not_say_how_refuses_frames_and_still_runs(bundle: Path, frame: NDArray[np.uint8]) -> None:
    write_program(bundle, bundles.HOST, metadata(), with_facts=False)
    with Session(bundle) as session:
        with pytest.raises(ConfigError, match="does not say how bytes become its input"):
            session.run_frame(frame, layout="chw")
        floats = trained(frame, metadata())
        np.testing.assert_array_equal(session.run(floats.reshape(1, *SHAPE)), floats)
    (bundle / "x.bin").write_bytes(frame.tobytes())
    arguments = ["--input", bundle / "x.bin", "--count", 1, "--frames", "chw"]
    assert "does not say how bytes become its input" in failed(svit_run(bundle, *arguments), 1)


def check_svit_run(bundle: Path, folder: Path, frame: NDArray[np.uint8], prefix: tuple[str, ...] = ()) -> None:
    content = {"hwc": frame.transpose(1, 2, 0).tobytes(), "chw": frame.tobytes()}
    for layout, image in content.items():
        (folder / "x.bin").write_bytes(image)
        files = ["--input", folder / "x.bin", "--count", 1, "--frames", layout, "--output", folder / "y.bin"]
        done = svit_run(bundle, *files, "--warmup", 0, "--repeat", 1, prefix=prefix)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["samples_ns"]) == 1
        got = np.fromfile(folder / "y.bin", np.uint32)
        np.testing.assert_array_equal(got, trained(frame, metadata()).view(np.uint32)[0])


def test_svit_run_reads_frames(built: Path, tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    check_svit_run(built, tmp_path, frame)


@pytest.mark.skipif(QEMU is None or not SYSROOT.is_dir(), reason="needs qemu-user-static and libc6-arm64-cross")
def test_an_emulated_cortex_a72_makes_the_same_numbers_of_bytes(tmp_path: Path, frame: NDArray[np.uint8]) -> None:
    arm = make_bundle(tmp_path / "arm", bundles.ARM)
    check_svit_run(arm, tmp_path, frame, (str(QEMU), "-cpu", "cortex-a72", "-L", str(SYSROOT)))


def test_names_of_classes_arrive_as_they_are(tiny_bundle: Path) -> None:
    model = dataclasses.replace(bundles.metadata(4), class_names=NAMES[:2])
    for names in (NAMES[:2], NAMES[2:]):
        lines = fact_lines(
            dataclasses.replace(model, class_names=names), features=(), golden_count=0, golden_tolerance=0
        )
        (tiny_bundle / "program.txt").write_text(bundles.PROGRAM.replace("end\n", "\n".join([*lines, "end\n"])))
        bundles.seal(tiny_bundle, bundles.HOST, model)
        with Session(tiny_bundle) as session:
            handle = session._open_handle()
            found = [session._library.svit_class_name(handle, index).decode() for index in range(3)]
            assert session._library.svit_steps(handle) == 4
        assert found == [*names, ""]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("steps 0", "an inference without steps"),
        ("steps 4\nsteps 4", "a second number of steps"),
        ("class a", "1 classes have names, there are 2 logits"),
        ("class %2", "not the code of a character: '%2'"),
        ("class %00", "not the code of a character"),
        ("frame 1 1 2 2 255 0 1", "the frames have 4 elements, the input 8 of type float32"),
        ("frame 1 1 2 4 0 0 1", "the divisor is 0"),
        ("frame 1 1 2 4 256 0 1", "divisor is '256', the largest allowed is 255"),
        ("frame 1 1 2 4 255 0 0", "a standard deviation is not above 0"),
        ("frame 1 1 2 4 255 nan 1", "the mean is no finite number: 'nan'"),
        ("frame 1 2 2 2 255 0 1", "'frame' wants 9 values, got 7"),
        ("frame 1 0 2 4 255", "frames without elements"),
        ("frame 1 140737488355328 140737488355328 1 255 0 1", "the frames are too large"),
        ("features", "'features' is cut off"),
        ("golden 1", "'golden' wants 2 values, got 1"),
        ("golden x 0", "number of inputs is no number: 'x'"),
    ],
)
def test_a_wrong_fact_is_refused_with_its_line(tiny_bundle: Path, tmp_path: Path, line: str, words: str) -> None:
    (tiny_bundle / "program.txt").write_text(bundles.PROGRAM.replace("end\n", f"{line}\nend\n"))
    done = subprocess.run([tiny_bundle / "svit-run", tiny_bundle, "--self-test"], capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert "svit-run: program.txt line 2" in done.stderr
