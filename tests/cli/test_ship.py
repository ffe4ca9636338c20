from __future__ import annotations

import json
import resource

import numpy as np
import pytest

from svitkit.data.dataset import normalize
from svitkit.evaluate import load_for
from svitkit.runtime.session import Session


def ask(svitkit, *arguments: str) -> dict[str, object]:
    """Runs a verb with --json; stdout must be one JSON object on one line."""
    done = svitkit(*arguments, "--json")
    assert done.returncode in (0, 3), done.stderr
    assert done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def accuracy(svitkit, what: str) -> float:
    evaluation = ask(svitkit, "evaluate", what, "--limit", "200")["evaluation"]
    assert evaluation["images"] == 200
    return evaluation["accuracy_percent"]


@pytest.mark.parametrize("mode", ["sequence", pytest.param("step", marks=pytest.mark.slow)])
def test_a_network_keeps_its_accuracy_through_export_build_and_bench(mode, svitkit, tmp_path):
    exported = ask(svitkit, "export", "digits-spikformer", "-o", "model.onnx", "--mode", mode)
    assert exported["operators"]["ai.svitkit::LIF"] == len(exported["metadata"]["lif_layers"])
    built = ask(svitkit, "build", "model.onnx", "--board", "host", "--data", "digits", "-o", "bundle")
    assert built["manifest"]["model"]["mode"] == mode
    record = ask(svitkit, "bench", "bundle", "--limit", "200", "--profile", "-o", "record.json")["record"]
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["golden"]["match"] is True
    wanted = accuracy(svitkit, "digits-spikformer")
    assert accuracy(svitkit, "model.onnx") == wanted
    assert record["accuracy"]["percent"] == wanted
    check_profile(record)
    check_memory_sum(record["memory"])
    layers = ask(svitkit, "inspect", "bundle")["layers"]
    assert [layer["p50_ns"] for layer in layers] == [layer["p50_ns"] for layer in record["profile"]["layers"]]
    shown = svitkit("inspect", "bundle")
    assert "p50 is from " in shown.stdout
    check_predictions(layers)
    check_frames(tmp_path / "bundle")
    if mode == "sequence":
        check_single_file(svitkit, record)


def check_frames(bundle) -> None:
    """Bytes give the logits of the normalized image, bit for bit."""
    with Session(bundle) as session:
        dataset = load_for(session.manifest.model, "digits")
        for image in dataset.test.x[:8]:
            wanted = session.run(normalize(image, dataset)[None])
            np.testing.assert_array_equal(session.run_frame(image.transpose(1, 2, 0)), wanted)
            np.testing.assert_array_equal(session.run_frame(image, layout="chw"), wanted)


def check_single_file(svitkit, record) -> None:
    """One program measures as the bundle does, and is smaller in every way."""
    ask(svitkit, "build", "model.onnx", "--board", "host", "--data", "digits", "--single-file", "-o", "program")
    single = ask(svitkit, "bench", "program", "--limit", "200")["record"]
    assert single["golden"] == record["golden"]
    assert single["accuracy"] == record["accuracy"]
    assert single["bundle_bytes"] < record["bundle_bytes"]
    assert single["memory"]["floor_bytes"] < record["memory"]["floor_bytes"]
    assert single["memory"]["vm_hwm_bytes"] < record["memory"]["vm_hwm_bytes"]
    check_memory_sum(single["memory"])


def check_predictions(layers) -> None:
    """Layers and lists of spikes have a share of active inputs and a time; together they are not far off."""
    chosen = [layer for layer in layers if layer["input_density"] is not None]
    assert len(chosen) > 5
    assert all(0 < layer["input_density"] < 1 and layer["predicted_ns"] > 0 for layer in chosen)
    assert all("of inputs active: rows " in x["reason"] for x in chosen if not x["kernel"].startswith("list"))
    assert 0.1 < sum(x["predicted_ns"] for x in chosen) / sum(x["p50_ns"] for x in chosen) < 10


def check_profile(record) -> None:
    """Every watched layer has a time, and the parts come to about the whole, on a machine that others use."""
    profile = record["profile"]
    assert {layer["layer"] for layer in profile["layers"]} >= record["firing_rates"].keys()
    assert len({layer["calls"] for layer in profile["layers"]}) == 1
    parts = sum(layer["p50_ns"] for layer in profile["layers"])
    assert 0.5 * profile["p50_ns"] <= parts <= 1.5 * profile["p50_ns"]
    assert profile["overhead_ns"] > 0


def check_memory_sum(memory) -> None:
    """Within 10 % of the peak, and of pages that three regions end in and one window of 64 KiB of a mapped file."""
    plan = memory["weights_bytes"] + memory["state_bytes"] + memory["workspace_bytes"]
    allowed = 0.1 * memory["vm_hwm_bytes"] + 3 * resource.getpagesize() + 65536
    assert abs(memory["vm_hwm_bytes"] - memory["floor_bytes"] - plan) <= allowed, memory
    assert memory["weights_resident_bytes"] > 0.5 * memory["weights_bytes"]


def test_sdk_writes_header_library_package_and_examples(svitkit, tmp_path):
    assert ask(svitkit, "sdk", "--board", "host", "-o", "sdk")["sdk"] == "sdk"
    found = {path.relative_to(tmp_path / "sdk").as_posix() for path in (tmp_path / "sdk").rglob("*")}
    assert {"include/svit.h", "lib/libsvit.so", "lib/libsvit.a", "lib/cmake/svitkit/svitkit-config.cmake"} <= found
    assert {"examples/CMakeLists.txt", "examples/classify.c", "toolchains/aarch64-linux-gnu.cmake"} <= found


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bench", "nosuch"), "nosuch is no bundle"),
        (("build", "missing.onnx", "--board", "host", "-o", "x"), "missing.onnx is no file"),
        (("build", "missing.onnx", "--board", "hots", "-o", "x"), "Did you mean 'host'?"),
        (("build", "x.onnx", "--board", "raspberry-pi-4", "--device", "gpu", "-o", "x"), "raspberry-pi-4 has no GPU"),
        (("build", "x.onnx", "--board", "pocl", "--device", "cpu", "-o", "x"), "say --board host"),
        (("build", "x.onnx", "--board", "pocl", "--single-file", "-o", "x"), "a single file is a static program"),
        (("export", "no/such/dir", "-o", "x.onnx"), "'no/such/dir' is no checkpoint directory"),
        (("train", "spikformr", "-o", "x"), "Did you mean 'spikformer'?"),
        (("evaluate", "digits-spikformer", "--split", "tset"), "Did you mean 'test'?"),
        (("evaluate", "digits-spikformer", "--timesteps", "8"), "was made for 4 time steps"),
        (("compress", "digits-spikformer", "-o", "x", "--method", "primsvt"), "Did you mean 'primesvt'?"),
        (("compress", "digits-spikformer", "-o", "x", "--data", "npz:missing.npz"), "missing.npz"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_leaves_nothing(arguments, says, svitkit, tmp_path):
    done = svitkit(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
