from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from svitkit.cli.bundle_view import view_bundle
from svitkit.errors import ConfigError
from svitkit.files import sha256
from svitkit.manifest import (
    GpuPlan,
    KernelChoice,
    LIFLayer,
    PrecisionTrial,
    SparseWeights,
    read_manifest,
    write_manifest,
)
from svitkit.runtime.bench.profile import LayerTime, Profile
from svitkit.runtime.bench.record import write_record
from tests.runtime import bundles
from tests.runtime.bench.test_record import record

CHOICE = KernelChoice(layer="fire", kernel="fire", reason="it is the only one")
TIMES = {"stem": 1000, "fire": 2000, "head": 3000}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that cannot run, but for what is looked at."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "program.txt").write_text(bundles.PROGRAM)
    model = bundles.metadata(4)
    fire = dataclasses.replace(model.lif_layers[0], firing_rate=0.25)
    bundles.seal(path, bundles.HOST, dataclasses.replace(model, lif_layers=(fire, *model.lif_layers[1:])))
    write_manifest(path, dataclasses.replace(read_manifest(path), kernels=(CHOICE,)))
    return path


def write_profile(bundle: Path, path: Path, *, emulated: bool = False) -> None:
    """Writes a record of the bundle with a profile."""
    layers = tuple(LayerTime(layer=name, kernel=name, p50_ns=ns, total_ns=ns, calls=1) for name, ns in TIMES.items())
    profile = Profile(emulated=emulated, p50_ns=6000, overhead_ns=20.0, layers=layers)
    write_record(path, dataclasses.replace(record(), bundle_sha256=sha256(bundle / "manifest.json"), profile=profile))


def shown(bundle: Path, record_path: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    for part in view_bundle(bundle, record_path)[1]:
        console.print(part, highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line(text: str, start: str) -> str:
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


def test_every_call_is_listed_with_its_kernel_reason_rate_and_shape(bundle: Path) -> None:
    layers = view_bundle(bundle)[0]["layers"]
    assert [(layer["layer"], layer["kernel"]) for layer in layers] == [
        ("stem", "scale"),
        ("fire", "fire"),
        ("head", "count"),
    ]
    stem, fire, _ = layers
    assert (stem["reason"], stem["firing_rate"], stem["shape"], stem["p50_ns"]) == (None, None, (8,), None)
    assert (fire["reason"], fire["firing_rate"], fire["shape"]) == ("it is the only one", 0.25, (1, 1, 8))
    assert line(shown(bundle), "fire ").split() == [
        "fire",
        "fire",
        "1x1x8",
        "uint8",
        "25.0%",
        "it",
        "is",
        "the",
        "only",
        "one",
    ]


def test_without_a_record_it_says_how_to_measure(bundle: Path) -> None:
    text = shown(bundle)
    assert f"no measured times: there is no record.json beside the bundle. Make one with 'svitkit bench {bundle}" in (
        " ".join(text.split())
    )
    assert "p50" not in line(text, "layer ")


def test_the_times_of_the_record_beside_the_bundle_are_shown(bundle: Path, tmp_path: Path) -> None:
    write_profile(bundle, tmp_path / "record.json")
    text = shown(bundle)
    assert "p50" in line(text, "layer ")
    assert "2.0 us" in line(text, "fire ")
    assert "p50 is from" in text
    assert [layer["p50_ns"] for layer in view_bundle(bundle)[0]["layers"]] == list(TIMES.values())


def test_a_record_that_is_named_comes_before_the_one_beside_the_bundle(bundle: Path, tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", record())
    write_profile(bundle, tmp_path / "other.json", emulated=True)
    text = shown(bundle, tmp_path / "other.json")
    assert line(text, "Layers").rstrip() == "Layers, p50 by an emulator, not a board"
    assert "3.0 us" in line(text, "head ")


@pytest.mark.parametrize(("mine", "says"), [(False, "is the record of another bundle"), (True, "holds no profile")])
def test_a_record_that_does_not_help_is_a_note_beside_the_bundle_and_an_error_if_named(
    bundle: Path, tmp_path: Path, mine: bool, says: str
) -> None:
    path = tmp_path / "record.json"
    owner = {"bundle_sha256": sha256(bundle / "manifest.json")} if mine else {}
    write_record(path, dataclasses.replace(record(), **owner))
    assert says in " ".join(shown(bundle).split())
    with pytest.raises(ConfigError, match=f"{says}.*svitkit bench"):
        view_bundle(bundle, path)


def test_a_damaged_record_is_a_note_beside_the_bundle_and_an_error_if_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    assert "no measured times: " in shown(bundle)
    with pytest.raises(ConfigError, match="is not a valid BenchRecord"):
        view_bundle(bundle, tmp_path / "record.json")


def test_predicted_times_have_a_column_only_if_the_manifest_has_some(bundle: Path) -> None:
    assert "predicted" not in line(shown(bundle), "layer ")
    choice = dataclasses.replace(CHOICE, predicted_ns=1234.0)
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), kernels=(choice,)))
    text = shown(bundle)
    assert "predicted" in line(text, "layer ")
    assert "1.2 us" in line(text, "fire ")
    assert "us" not in line(text, "stem ")


def test_the_share_of_active_inputs_has_a_column_only_if_the_manifest_has_some(bundle: Path) -> None:
    assert "inputs active" not in line(shown(bundle), "layer ")
    choice = dataclasses.replace(CHOICE, input_density=0.125)
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), kernels=(choice,)))
    text = shown(bundle)
    assert "inputs active" in line(text, "layer ")
    assert line(text, "fire ").split()[4:6] == ["25.0%", "12.5%"]
    assert [layer["input_density"] for layer in view_bundle(bundle)[0]["layers"]] == [None, 0.125, None]


def test_layers_that_are_stored_without_zeros_are_named_with_what_they_take(bundle: Path) -> None:
    assert "without zeros" not in shown(bundle)
    parts = tuple(
        SparseWeights(layer=name, stored_bytes=1024 * size, expanded_bytes=10240 * size)
        for name, size in (("a", 1), ("b", 4), ("c", 3), ("d", 2))
    )
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), sparse=parts))
    text = " ".join(line(shown(bundle), "without zeros").split())
    assert "4 layers, 100.0 KiB stored in 10.0 KiB: b 40.0 KiB -> 4.0 KiB, c 30.0 KiB -> 3.0 KiB, d" in text
    assert text.endswith("...")


def test_lists_and_the_layer_of_the_same_name_have_their_own_predictions(bundle: Path) -> None:
    program = bundles.PROGRAM.replace("call fire fire whole", "call list_3 fire whole").replace(
        "call count head whole", "call event_4 fire whole"
    )
    (bundle / "program.txt").write_text(program)
    choices = [
        KernelChoice(layer="fire", kernel=kernel, reason=kernel, predicted_ns=ns)
        for kernel, ns in (("list", 10.0), ("event", 20.0))
    ]
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), kernels=tuple(choices)))
    layers = view_bundle(bundle)[0]["layers"]
    assert [(layer["reason"], layer["predicted_ns"]) for layer in layers] == [
        (None, None),
        ("list", 10.0),
        ("event", 20.0),
    ]


LAUNCHES = """\
device cuda 87 kernels.ptx
tensor 7 turned float32 workspace 320 1 8
prepare turn stem 1 1 1 32 1 1 2 1 7
launch scale stem 1 1 1 32 1 1 3 3 7 0
launch fire fire 1 1 1 32 1 1 4 6 4 3 2
launch count head 1 1 1 32 1 1 2 5 4
"""
"""A kernel's arguments have no order that says which it writes."""
PLAN = GpuPlan(
    api="cuda",
    architecture="sm_87",
    allows_cpu=False,
    precision="fp16",
    trial=PrecisionTrial(inputs=64, class_changes=0, spike_agreement=0.9875),
    launches=3,
    prepared=1,
    bytes_moved=2048,
)


def turn_to_gpu(bundle: Path, mode: str, plan: GpuPlan = PLAN) -> None:
    """Gives a bundle launches in place of calls."""
    lines = (bundle / "program.txt").read_text().splitlines(keepends=True)
    (bundle / "program.txt").write_text("".join(line for line in lines if not line.startswith("call")) + LAUNCHES)
    manifest = read_manifest(bundle)
    model = dataclasses.replace(manifest.model, mode=mode)
    write_manifest(bundle, dataclasses.replace(manifest, model=model, gpu=plan))


def test_a_bundle_for_a_gpu_says_what_it_asks_of_it_in_each_step_and_in_an_inference(bundle: Path) -> None:
    turn_to_gpu(bundle, "step")
    result, _ = view_bundle(bundle)
    assert result["gpu"] == {
        "api": "cuda",
        "architecture": "sm_87",
        "allows_cpu": False,
        "precision": "fp16",
        "precision_trial": {"inputs": 64, "class_changes": 0, "spike_agreement": 0.9875},
        "launches_per_run": 3,
        "launches_per_inference": 12,
        "launches_at_load": 1,
        "bytes_moved_estimate": 8192,
        "device_memory_bytes": 384,
    }
    assert [(layer["layer"], layer["kernel"], layer["shape"], layer["dtype"]) for layer in result["layers"]] == [
        ("stem", "scale", (8,), "float32"),
        ("fire", "fire", (1, 1, 8), "uint8"),
        ("head", "count", (2,), "float32"),
    ]
    text = shown(bundle)
    assert line(text, "launches per inference").split(maxsplit=3)[3].strip() == "12 (3 in each of 4 time steps)"
    assert "8.0 KiB (estimate: every buffer once a launch)" in text
    assert "0.4 KiB: weights 0.0 KiB, states 0.0 KiB, workspace 0.3 KiB" in text
    assert "sm_87 or newer" in text
    assert "changes 0 of 64 classes and 1.25% of the spikes, in ONNX Runtime" in text
    assert "host (its GPU)" in line(text, "board ")


def test_in_sequence_mode_one_run_is_an_inference(bundle: Path) -> None:
    turn_to_gpu(bundle, "sequence", dataclasses.replace(PLAN, api="opencl", architecture=None, allows_cpu=True))
    gpu = view_bundle(bundle)[0]["gpu"]
    assert (gpu["launches_per_run"], gpu["launches_per_inference"], gpu["bytes_moved_estimate"]) == (3, 3, 2048)
    text = shown(bundle)
    assert line(text, "launches per inference").split() == ["launches", "per", "inference", "3"]
    assert "opencl, a CPU may take the GPU's place" in text


def test_a_bundle_for_the_cpu_says_nothing_of_gpus(bundle: Path) -> None:
    assert view_bundle(bundle)[0]["gpu"] is None
    assert "On the GPU" not in shown(bundle)


def test_of_the_kernels_of_a_layer_the_one_with_its_spikes_shows_their_shape_and_type(bundle: Path) -> None:
    turn_to_gpu(bundle, "step")
    text = (bundle / "program.txt").read_text()
    packed = text.replace("tensor 4 spikes uint8", "tensor 8 first float32 workspace 352 1 3\ntensor 4 spikes uint1")
    packed = packed.replace("launch fire fire", "launch key_values_3 fire 1 1 1 32 1 1 2 8 3\nlaunch fire fire")
    (bundle / "program.txt").write_text(packed.replace("tap fire 4 1", "tap fire 4 2"))
    layers = view_bundle(bundle)[0]["layers"]
    assert [(layer["kernel"], layer["shape"], layer["dtype"]) for layer in layers] == [
        ("scale", (8,), "float32"),
        ("key_values_3", (3,), "float32"),
        ("fire", (1, 1, 8), "uint1"),
        ("count", (2,), "float32"),
    ]


def test_a_record_for_what_is_no_bundle_is_refused(svitkit) -> None:
    done = svitkit("inspect", "digits-spikformer", "--record", "x.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--record belongs to a bundle" in done.stderr


def test_a_layer_without_calibration_has_no_rate(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    plain = tuple(LIFLayer(name=x.name, params=x.params, state_shape=x.state_shape) for x in manifest.model.lif_layers)
    write_manifest(bundle, dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, lif_layers=plain)))
    assert "%" not in line(shown(bundle), "fire ")


def test_the_view_is_json(bundle: Path, tmp_path: Path, svitkit) -> None:
    write_profile(bundle, tmp_path / "record.json")
    done = svitkit("inspect", "bundle", "--json")
    assert done.returncode == 0, done.stderr
    assert [layer["p50_ns"] for layer in json.loads(done.stdout)["layers"]] == list(TIMES.values())
