from __future__ import annotations

import json

import pytest


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


@pytest.mark.parametrize("mode", ["sequence", "step"])
def test_a_network_keeps_its_accuracy_through_export_build_and_bench(mode, svitkit, tmp_path):
    exported = ask(svitkit, "export", "digits-spikformer", "-o", "model.onnx", "--mode", mode)
    assert exported["operators"]["ai.svitkit::LIF"] == len(exported["metadata"]["lif_layers"])
    built = ask(svitkit, "build", "model.onnx", "--board", "host", "--data", "digits", "-o", "bundle")
    assert built["manifest"]["model"]["mode"] == mode
    record = ask(svitkit, "bench", "bundle", "--limit", "200", "-o", "record.json")["record"]
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["golden"]["match"] is True
    wanted = accuracy(svitkit, "digits-spikformer")
    assert accuracy(svitkit, "model.onnx") == wanted
    assert record["accuracy"]["percent"] == wanted


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bench", "nosuch"), "nosuch is no bundle"),
        (("build", "missing.onnx", "--board", "host", "-o", "x"), "missing.onnx is no file"),
        (("build", "missing.onnx", "--board", "hots", "-o", "x"), "Did you mean 'host'?"),
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
