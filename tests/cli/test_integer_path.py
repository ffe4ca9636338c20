"""From the command line: weights rounded to integers, exported, compiled, and still equal."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest


def ask(svitkit, *arguments: str, code: int = 0) -> dict[str, object]:
    done = svitkit(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", [pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_integer_weights_go_all_the_way(svitkit, tmp_path: Path, method: str) -> None:
    report = ask(svitkit, "compress", "digits-spikformer", "-o", "small", "--method", method, "--limit", "60")["report"]
    assert report["satisfied"] is True
    assert report["memory_saving"] > (0.7 if method == "int8" else 0.8)
    exported = ask(svitkit, "export", "small", "-o", "model.onnx", "--data", "digits")
    assert exported["metadata"]["parameter_bytes"] == report["parameter_bytes_after"]
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert (kinds.count("ConvInteger"), kinds.count("MatMulInteger"), kinds.count("Conv")) == (13, 1, 0)
    ask(svitkit, "build", "model.onnx", "--board", "host", "--data", "digits", "-o", "bundle")
    accuracies = [
        ask(svitkit, "evaluate", what, "--limit", "60")["evaluation"]["accuracy_percent"]
        for what in ("small", "model.onnx", "bundle")
    ]
    assert accuracies == [accuracies[0]] * 3
    assert accuracies[0] > 95


def test_limits_that_rounding_cannot_meet_end_with_3(svitkit) -> None:
    told = ("-o", "small", "--method", "int8", "--min-saving", "0.9", "--limit", "20")
    report = ask(svitkit, "compress", "digits-spikformer", *told, code=3)["report"]
    assert report["satisfied"] is False
    done = svitkit("compress", "small", "-o", "smaller", "--method", "primesvt")
    assert done.returncode == 1
    assert "prune first, quantize last" in done.stderr


def test_training_after_rounding_is_a_mistake_said_in_one_line(svitkit) -> None:
    done = svitkit("compress", "digits-spikformer", "-o", "x", "--method", "int4", "--finetune", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "would move them off" in done.stderr
    assert "Traceback" not in done.stderr
