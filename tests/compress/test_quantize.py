"""Rounding of weights to integers, and networks compressed so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from svitkit.compress.pipeline import compress_model
from svitkit.compress.quantize import quantize_network, quantize_weight, uniform_bits
from svitkit.compress.report import PruneReport
from svitkit.compress.report_table import report_table
from svitkit.compress.run import CompressResult
from svitkit.data import Dataset
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import Normalization, from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.run import example_input, forward_logits

PLAIN = Normalization(mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(1, 1), (7, 3, 3, 3), (5, 1, 1), (3, 301)])
def test_integers_are_the_nearest_and_scales_those_of_the_largest_weight(bits: int, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight[0] = 0
    found = quantize_weight(weight, bits)
    top = 2 ** (bits - 1) - 1
    rows, levels = weight.reshape(len(weight), -1), found.integers.reshape(len(weight), -1).astype(int)
    assert found.scale[0] == 1
    assert not levels[0].any()
    np.testing.assert_allclose(found.scale[1:], abs(rows[1:]).max(axis=1) / top, rtol=1e-6)
    assert (abs(levels[1:]).max(axis=1) == top).all()
    assert (abs(found.dequantize() - weight).reshape(len(weight), -1) <= 0.5001 * found.scale[:, None]).all()
    assert found.integers.dtype == np.int8


def test_halves_are_rounded_to_even() -> None:
    found = quantize_weight(np.array([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]], np.float32), 4)
    assert found.integers.tolist() == [[7, 0, 2, 2, 0, -2, -2]]
    assert found.scale.tolist() == [1.0]


@pytest.fixture(scope="module", params=["int8", "int4"])
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, digits: Dataset
) -> tuple[Path, CompressResult]:
    out = tmp_path_factory.mktemp(request.param) / "small"
    return out, compress_model(checkpoint, digits, out, method=request.param, max_drop=100.0, limit=24)


def test_the_directory_holds_the_network_that_was_measured(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint, digits: Dataset
) -> None:
    out, result = finished
    loaded, made = load_checkpoint(out), result.checkpoint
    x = torch.randn(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(made.model, x))
    assert loaded.spec == made.spec
    assert loaded.spec.plan == checkpoint.spec.plan
    assert {name: weight.bits for name, weight in loaded.quantized.items()} == loaded.spec.quantization.layers


def test_the_report_says_bits_and_bytes_of_every_layer(
    finished: tuple[Path, CompressResult], checkpoint: Checkpoint
) -> None:
    out, result = finished
    report = from_json((out / "report.json").read_bytes(), PruneReport, source="report.json")
    assert report == result.report
    assert report.groups == ()
    assert report.parameter_bytes_after == load_checkpoint(out).parameter_bytes()
    assert report.parameter_bytes_before == checkpoint.parameter_bytes()
    biases = 4 * sum(
        parameter.numel() if name == "head.bias" else len(parameter)
        for name, parameter in checkpoint.model.named_parameters()
        if name == "head.bias" or (parameter.ndim > 1 and name != "head.weight")
    )
    assert sum(layer.size_bytes for layer in report.layers) + biases == report.parameter_bytes_after
    assert 1 - report.parameter_bytes_after / report.parameter_bytes_before == report.memory_saving > 0.7
    bits = [layer.bits for layer in report.layers]
    assert bits[0] == bits[-1] == 8
    assert set(bits[1:-1]) == {int(report.method[-1])}


def test_the_table_names_every_layer(finished: tuple[Path, CompressResult]) -> None:
    from rich.console import Console

    console = Console(record=True, width=250, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report_table(finished[1].report))
    text = console.export_text()
    assert all(layer.name in text for layer in finished[1].report.layers)
    assert "constraints met" in text


def test_a_saving_out_of_reach_is_said_and_the_network_kept(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    result = compress_model(checkpoint, digits, tmp_path / "x", method="int8", max_drop=100, min_saving=0.9, limit=8)
    assert not result.satisfied
    assert "at least 90 wanted" in result.report.why
    assert load_checkpoint(tmp_path / "x").spec.quantization is not None


def test_the_given_network_is_not_changed(checkpoint: Checkpoint) -> None:
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    bits = uniform_bits(checkpoint.model, example_input(checkpoint.spec), 4)
    quantize_network(checkpoint.model, bits, PLAIN, static=True)
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    assert not checkpoint.model._forward_pre_hooks


def test_batch_norms_are_calibrated_again_only_if_validation_is_no_worse(
    checkpoint: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    known = {"max_drop": 100.0, "limit": 24, "method": "int4"}
    plain = compress_model(checkpoint, digits, tmp_path / "a", **known)
    again = compress_model(checkpoint, digits, tmp_path / "b", bn_recalibration=24, **known)
    assert again.report.after.validation >= plain.report.after.validation
    assert again.report.bn_recalibration == 24


@pytest.mark.parametrize("method", ["primesvt", "int8"])
def test_a_quantized_network_is_not_compressed_again(
    finished: tuple[Path, CompressResult], digits: Dataset, tmp_path: Path, method: str
) -> None:
    with pytest.raises(ConfigError, match="prune first, quantize last"):
        compress_model(finished[1].checkpoint, digits, tmp_path / "x", method=method)


def test_a_pruned_network_can_be_quantized(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    pruned = compress_model(checkpoint, digits, tmp_path / "p", max_drop=100.0, min_saving=0.2, limit=8)
    small = compress_model(pruned.checkpoint, digits, tmp_path / "q", method="int8", max_drop=100.0, limit=8)
    loaded = load_checkpoint(tmp_path / "q")
    assert loaded.spec.plan == pruned.checkpoint.spec.plan is not None
    assert small.report.original_parameter_bytes == checkpoint.parameter_bytes()
    assert small.report.memory_saving > pruned.report.memory_saving


def test_training_behind_the_rounding_is_refused(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would move them off"):
        compress_model(checkpoint, digits, tmp_path / "x", method="int8", finetune_epochs=1)


def test_a_network_without_weights_is_refused() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((3, 4))

    with pytest.raises(UnsupportedError, match="nothing to quantize"):
        uniform_bits(Nothing(), torch.zeros(2, 1, 3, 4, 4), 8)


def test_the_checkpoint_says_how_it_was_made(finished: tuple[Path, CompressResult]) -> None:
    provenance = json.loads((finished[0] / "svit.json").read_text())["provenance"]["compressed"]
    assert provenance["method"] == finished[1].report.method
