"""AQ4SViT as a method of compress: the trained digits network to its smallest bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import PruneReport
from svitkit.compress.run import CompressResult
from svitkit.data import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits
from tests.compress.networks import firing_checkpoint

QUICK: dict[str, Any] = {"limit": 60, "settings": {"calibration_images": 60, "gate_images": 16, "audit": 1}}


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory, whole: Checkpoint, digits: Dataset) -> tuple[Path, CompressResult]:
    out = tmp_path_factory.mktemp("greedy") / "small"
    return out, compress_model(whole, digits, out, method="aq4svit-greedy", min_saving=0.9, **QUICK)


def test_nine_tenths_of_the_memory_go_within_a_point_and_a_half(greedy: tuple[Path, CompressResult]) -> None:
    out, result = greedy
    assert result.satisfied
    assert result.report.memory_saving >= 0.9
    assert result.report.before.validation - result.report.after.validation <= 1.5
    loaded = load_checkpoint(out)
    x = torch.randn(4, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(result.checkpoint.model, x))
    assert loaded.parameter_bytes() == result.report.parameter_bytes_after
    assert result.report == from_json((out / "report.json").read_text(), PruneReport, source="report.json")


def test_the_report_tells_every_layer_and_every_candidate(greedy: tuple[Path, CompressResult]) -> None:
    report = greedy[1].report
    assert report.bits is not None
    assert report.layers[0].bits == report.layers[-1].bits == 8
    assert all(layer.bits < 8 for layer in report.layers[1:-1])
    assert report.bits.full_evaluations == sum(
        candidate.accuracy is not None and candidate.level != "audit" for candidate in report.bits.candidates
    )
    chosen = [each for each in report.bits.candidates if each.kept]
    assert len({(each.bits, each.level == "audit") for each in report.bits.candidates}) == len(report.bits.candidates)
    assert min(each.parameter_bytes for each in chosen) == report.parameter_bytes_after


def test_the_neurons_compute_in_integers_with_the_membranes_that_the_report_tells(
    greedy: tuple[Path, CompressResult],
) -> None:
    report, quantization = greedy[1].report, greedy[1].checkpoint.spec.quantization
    assert report.bits is not None
    assert quantization is not None
    assert report.bits.membranes in (16, 8, 4)
    assert set(quantization.membranes) == set(neuron_layers(greedy[1].checkpoint.model))
    assert {membrane.bits for membrane in quantization.membranes.values()} == {report.bits.membranes}


def test_without_membranes_neurons_stay_float32(checkpoint: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    settings = {**QUICK["settings"], "membranes": None, "widths": (8,)}
    result = compress_model(checkpoint, digits, tmp_path / "f", method="aq4svit-greedy", limit=12, settings=settings)
    assert result.checkpoint.spec.quantization is not None
    assert result.report.bits is not None
    assert result.checkpoint.spec.quantization.membranes == {}
    assert result.report.bits.membranes is None


def test_a_stopped_search_goes_on_to_the_same_bits(
    greedy: tuple[Path, CompressResult], whole: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "network" and done == total:
            raise KeyboardInterrupt

    told = {"method": "aq4svit-greedy", "min_saving": 0.9, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        compress_model(whole, digits, tmp_path / "c", progress=kill, **told)
    again = compress_model(whole, digits, tmp_path / "c", resume=True, **told)
    assert again.report == greedy[1].report


def test_the_beam_goes_on_from_the_greedy_search(digits: Dataset, tmp_path: Path) -> None:
    network = firing_checkpoint("spikformer", digits)
    settings = {**QUICK["settings"], "beam_width": 2, "widths": (8, 4)}
    result = compress_model(
        network, digits, tmp_path / "b", method="aq4svit-beam", max_drop=100.0, limit=12, settings=settings
    )
    assert {layer.bits for layer in result.report.layers[1:-1]} == {4}


def test_a_saving_out_of_reach_is_not_satisfied_and_the_best_is_kept(digits: Dataset, tmp_path: Path) -> None:
    network = firing_checkpoint("spikformer", digits)
    told = {"limit": 12, "settings": {**QUICK["settings"], "widths": (8,)}}
    result = compress_model(network, digits, tmp_path / "s", method="aq4svit-greedy", min_saving=0.9, **told)
    assert not result.satisfied
    assert load_checkpoint(tmp_path / "s").spec.quantization is not None


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"method": "aq4svit-greedy", "settings": {"beam_width": 3}}, "Choose method 'aq4svit-beam'"),
        ({"method": "aq4svit-greedy", "settings": {"widths": (5, 9)}}, "widths"),
        ({"method": "aq4svit-greedy", "settings": {"calibration_images": 0}}, "calibration_images"),
        ({"method": "aq4svit-greedy", "settings": {"widths": (16, 8)}}, "widths"),
        ({"method": "aq4svit-greedy", "settings": {"membranes": (12,)}}, "membranes"),
        ({"method": "aq4svit-greedy", "settings": {"membranes": (8, 16)}}, "membranes must descend"),
        ({"method": "aq4svit-greedy", "bn_recalibration": 8}, "mends weights"),
        ({"method": "aq4svit-greedy", "objective": "latency"}, "saves memory only"),
    ],
)
def test_what_makes_no_sense_is_refused(
    told: dict[str, Any], says: str, whole: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        compress_model(whole, digits, tmp_path / "x", **told)


def test_a_network_of_integers_is_refused(greedy: tuple[Path, CompressResult], digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="integers already"):
        compress_model(greedy[1].checkpoint, digits, tmp_path / "x", method="aq4svit-greedy")
