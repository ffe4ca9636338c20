from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from svitkit.errors import ConfigError, RunError, VerificationError
from svitkit.manifest import check_files, read_manifest, write_manifest
from svitkit.runtime.session import Session
from tests.runtime import bundles

IMAGE = np.linspace(0.1, 2, 8, dtype=np.float32)[None]
FRAMES = np.random.default_rng(0).uniform(0, 1.5, (4, 8)).astype(np.float32)


def reseal(bundle: Path, *, old: str, new: str) -> None:
    """Changes program.txt and makes the manifest fit again."""
    text = (bundle / "program.txt").read_text()
    assert old in text
    (bundle / "program.txt").write_text(text.replace(old, new))
    bundles.seal(bundle, bundles.HOST, bundles.metadata(4))


def test_step_keeps_the_states_and_equals_numpy(built_host_bundle: Path) -> None:
    logits, _ = bundles.expected(FRAMES)
    with Session(built_host_bundle) as session:
        got = [session.step(frame[None])[0] for frame in FRAMES]
    np.testing.assert_array_equal(got, logits)


def test_run_is_the_mean_over_the_steps_of_a_static_input_or_of_frames(built_host_bundle: Path) -> None:
    with Session(built_host_bundle) as session:
        static, frames = session.run(IMAGE), session.run(FRAMES)
        np.testing.assert_array_equal(session.run(IMAGE[0]), static)
    np.testing.assert_array_equal(static[0], bundles.expected(np.repeat(IMAGE, 4, axis=0))[0].mean(axis=0))
    np.testing.assert_array_equal(frames[0], bundles.expected(FRAMES)[0].mean(axis=0))
    assert static.dtype == np.float32


def test_reset_then_steps_equal_a_fresh_session(built_host_bundle: Path) -> None:
    with Session(built_host_bundle) as session:
        fresh = [session.step(frame[None]) for frame in FRAMES]
        kept = [session.step(frame[None]) for frame in FRAMES]
        session.reset()
        again = [session.step(frame[None]) for frame in FRAMES]
    np.testing.assert_array_equal(fresh, again)
    assert not np.array_equal(fresh, kept)


def test_an_initial_state_is_where_the_neurons_start(tiny_bundle: Path) -> None:
    reseal(tiny_bundle, old="state 2 0.0", new="state 2 1e0")
    with Session(tiny_bundle) as session:
        np.testing.assert_array_equal(session.step(np.zeros((1, 8), np.float32)), [[4.0, 4.0]])
        np.testing.assert_array_equal(session.step(np.zeros((1, 8), np.float32)), [[0.0, 0.0]])


def test_spikes_come_by_layer_in_the_exported_order(built_host_bundle: Path) -> None:
    with Session(built_host_bundle) as session:
        logits, spikes = session.run_with_spikes(FRAMES)
        np.testing.assert_array_equal(session.run(FRAMES), logits)
    _, expected = bundles.expected(FRAMES)
    assert list(spikes) == ["fire", "counts"]
    for layer in spikes.values():
        assert layer.dtype == np.uint8
        np.testing.assert_array_equal(layer, expected)


@pytest.mark.parametrize("cpus", ["all", "one"])
def test_threads_give_the_same_again_and_again_even_on_one_cpu(built_host_bundle: Path, cpus: str) -> None:
    expected = bundles.expected(FRAMES)[0].mean(axis=0)
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, usable if cpus == "all" else {min(usable)})  # threads that start inherit it
    try:
        with Session(built_host_bundle, threads=2) as two, Session(built_host_bundle, threads=3) as three:
            for _ in range(500):
                np.testing.assert_array_equal(two.run(FRAMES)[0], expected)
                np.testing.assert_array_equal(three.run(FRAMES)[0], expected)
    finally:
        os.sched_setaffinity(0, usable)


@pytest.mark.parametrize("threads", [0, -1, 4])
def test_threads_that_the_bundle_was_not_built_for_are_refused(built_host_bundle: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=rf"threads={threads}, the bundle was built for 1 to 3"):
        Session(built_host_bundle, threads=threads)


def test_a_kernels_error_in_another_thread_is_reported_and_the_session_goes_on(tiny_bundle: Path) -> None:
    reseal(tiny_bundle, old="call scale stem split 3 0 1 3", new="call scale stem split 3 0 2 5")
    with Session(tiny_bundle, threads=3) as session:
        for _ in range(100):
            with pytest.raises(RunError, match=r"'scale' of layer 'stem' failed: \w+Error: .*"):
                session.run(IMAGE)


def test_two_sessions_do_not_share_states(built_host_bundle: Path) -> None:
    half = np.full((1, 8), 0.5, np.float32)
    with Session(built_host_bundle) as first, Session(built_host_bundle) as second:
        first.step(half)
        np.testing.assert_array_equal(second.step(half), bundles.expected(half)[0])


@pytest.mark.parametrize(
    "x",
    [IMAGE.astype(np.float64), IMAGE[None], np.zeros((3, 8), np.float32), np.zeros((0, 8), np.float32)],
    ids=["float64", "an axis too many", "three of four steps", "empty"],
)
def test_a_wrong_input_is_a_config_error(built_host_bundle: Path, x: np.ndarray) -> None:
    with Session(built_host_bundle) as session, pytest.raises(ConfigError, match=r"wanted float32 \("):
        session.run(x)


def test_an_input_that_is_not_contiguous_is_read_as_it_looks(built_host_bundle: Path) -> None:
    with Session(built_host_bundle) as session:
        np.testing.assert_array_equal(session.run(np.asfortranarray(FRAMES)), session.run(FRAMES))


def test_step_is_refused_by_a_sequence_bundle(tiny_bundle: Path) -> None:
    bundles.seal(tiny_bundle, bundles.HOST, dataclasses.replace(bundles.metadata(1), mode="sequence"))
    with Session(tiny_bundle) as session:
        np.testing.assert_array_equal(session.run(IMAGE), bundles.expected(IMAGE)[0])
        with pytest.raises(ConfigError, match="--mode step"):
            session.step(IMAGE)


@pytest.mark.parametrize("name", ["model.so", "weights.bin", "program.txt", "libsvit.so", "svit-run"])
def test_a_changed_file_is_found_before_anything_is_loaded(
    tiny_bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    content = bytearray((tiny_bundle / name).read_bytes())
    content[-1] ^= 1
    (tiny_bundle / name).write_bytes(bytes(content))
    with pytest.raises(VerificationError, match=name):
        Session(tiny_bundle)


def test_a_missing_file_is_named(tiny_bundle: Path) -> None:
    (tiny_bundle / "model.so").unlink()
    with pytest.raises(VerificationError, match=r"lacks model\.so"):
        Session(tiny_bundle)


def test_a_bundle_for_another_architecture_is_refused(tiny_bundle: Path) -> None:
    other = next(triple for triple in bundles.TARGETS if triple != bundles.HOST)
    write_manifest(tiny_bundle, dataclasses.replace(read_manifest(tiny_bundle), triple=other))
    with pytest.raises(ConfigError, match=r"built for \w+, this machine is \w+: run it through board"):
        Session(tiny_bundle)


@pytest.mark.parametrize("name", ["../model.so", "/etc/passwd", "..", "", "a" * 5000, "\u00e9" * 200, "model.so\0"])
def test_a_manifest_that_names_what_is_no_file_of_the_bundle_is_refused(tiny_bundle: Path, name: str) -> None:
    manifest = read_manifest(tiny_bundle)
    files = {**manifest.files, name: manifest.files["model.so"]}
    with pytest.raises(VerificationError, match="no plain file of the bundle"):
        check_files(tiny_bundle, dataclasses.replace(manifest, files=files))


def test_a_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no bundle"):
        Session(tmp_path)


def test_a_program_that_does_not_fit_its_manifest_is_refused(tiny_bundle: Path) -> None:
    reseal(tiny_bundle, old="output 5", new="output 3")
    with pytest.raises(VerificationError, match="the program's output"):
        Session(tiny_bundle)


@pytest.mark.parametrize("neurons", [None, (1, 9)], ids=["no such layer", "other neurons"])
def test_spikes_that_the_manifest_does_not_know_are_refused(tiny_bundle: Path, neurons: tuple[int, ...] | None) -> None:
    model = bundles.metadata(4)
    fire, counts = model.lif_layers
    layers = (counts,) if neurons is None else (dataclasses.replace(fire, state_shape=neurons), counts)
    bundles.seal(tiny_bundle, bundles.HOST, dataclasses.replace(model, lif_layers=layers))
    with pytest.raises(VerificationError, match=r"spikes \(8, 1\) of layer 'fire'"):
        Session(tiny_bundle)


def test_spikes_stored_without_their_axes_of_one_come_with_them(tiny_bundle: Path) -> None:
    reseal(
        tiny_bundle, old="tensor 6 counts float32 workspace 256 2 1 8", new="tensor 6 counts float32 workspace 256 1 8"
    )
    text = (tiny_bundle / "program.txt").read_text().replace("taporder counts 2 0 1", "taporder counts 1 0")
    text = text.replace("call fire fire whole 4 3 2 4 6", "call fire fire whole 4 3 2 4 7")
    text = text.replace("state 2", "tensor 7 shaped float32 workspace 256 2 1 8\nstate 2")
    (tiny_bundle / "program.txt").write_text(text)
    bundles.seal(tiny_bundle, bundles.HOST, bundles.metadata(4))
    with Session(tiny_bundle) as session:
        np.testing.assert_array_equal(session.run_with_spikes(FRAMES)[1]["counts"], bundles.expected(FRAMES)[1])


def test_the_error_of_a_damaged_program_names_the_line(tiny_bundle: Path) -> None:
    reseal(tiny_bundle, old="state 2 0.0", new="state 2 nothing")
    with pytest.raises(ConfigError, match=r"program\.txt line 11"):
        Session(tiny_bundle)


def test_a_kernels_own_error_is_reported_in_a_process_that_has_tvm(tiny_bundle: Path) -> None:
    import tvm  # noqa: F401  # its runtime has a function of the same name as the kernels' error function

    reseal(tiny_bundle, old="call scale stem split 3 0 1 3", new="call scale stem split 3 0 2 5")
    with (
        Session(tiny_bundle) as session,
        pytest.raises(RunError, match=r"'scale' of layer 'stem' failed: \w+Error: .*"),
    ):
        session.run(IMAGE)


def test_a_kernels_own_error_is_reported_in_a_process_without_tvm(tiny_bundle: Path) -> None:
    reseal(tiny_bundle, old="call scale stem split 3 0 1 3", new="call scale stem split 3 0 2 5")
    program = (
        "import pathlib, sys, numpy\n"
        "from svitkit.errors import SvitError\n"
        "from svitkit.runtime.session import Session\n"
        "session = Session(pathlib.Path(sys.argv[1]))\n"
        "assert 'tvm' not in sys.modules and 'torch' not in sys.modules\n"
        "try:\n    session.step(numpy.zeros((1, 8), numpy.float32))\n"
        "except SvitError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "'scale' of layer 'stem' failed: " in result.stdout


def test_a_closed_session_says_so(built_host_bundle: Path) -> None:
    session = Session(built_host_bundle)
    session.close()
    session.close()
    with pytest.raises(ConfigError, match="closed"):
        session.run(IMAGE)


def test_a_bundle_works_from_any_directory_and_with_blanks_in_its_name(
    built_host_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built_host_bundle, tmp_path / "my bundle ü")
    monkeypatch.chdir(tmp_path)
    with Session(Path("my bundle ü")) as session:
        np.testing.assert_array_equal(session.run(FRAMES)[0], bundles.expected(FRAMES)[0].mean(axis=0))
