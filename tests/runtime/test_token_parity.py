"""Networks of fewer tokens: ONNX Runtime, this machine and emulated boards give the same spikes and logits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from svitkit.boards.board import load_board
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Mode
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.spec import TokenCriterion
from svitkit.proven import random_samples
from svitkit.runtime.build import build_bundle
from tests.export.quantized import quantize, quantize_neurons
from tests.export.reduced import reduced
from tests.runtime.recordings import (
    Array,
    assert_lively,
    assert_same_bits,
    by_board,
    by_onnx_runtime,
    by_session,
    emulated,
)
from tests.runtime.test_integer_parity import make_exact

FEW = 6
Rest = Literal["skip", "drop"]


def prepared(family: str, criterion: TokenCriterion, rest: Rest, bits: str) -> Checkpoint:
    """A network of fewer tokens whose sums are exact: integers, or float32 of few binary places."""
    checkpoint = reduced(family, criterion, rest)
    if bits == "exact":
        checkpoint = copy.deepcopy(checkpoint)
        make_exact(checkpoint.model)
        return checkpoint
    return quantize(checkpoint, 8) if bits == "int8" else quantize_neurons(checkpoint, 4, 8)


def inputs_of(checkpoint: Checkpoint, onnx: Path, *, mode: Mode = "sequence", count: int = FEW) -> Array:
    """Exports a network and draws inputs that are multiples of 1/16."""
    metadata = export_onnx(checkpoint, onnx, mode=mode)
    return np.round(random_samples(metadata, count=count, seed=0) * 16) / 16


@pytest.mark.parametrize(
    ("family", "criterion", "rest", "bits"),
    [
        pytest.param("spikformer", "difference", "skip", "int8", marks=pytest.mark.slow),
        ("spikformer", "learned", "drop", "int4"),
        pytest.param("spike-driven-transformer", "activity", "skip", "exact", marks=pytest.mark.slow),
        pytest.param("qkformer", "grid", "skip", "int8", marks=pytest.mark.slow),
        pytest.param("spike-driven-transformer", "difference", "skip", "int4", marks=pytest.mark.slow),
        pytest.param("spike-driven-transformer", "learned", "drop", "int8", marks=pytest.mark.slow),
        pytest.param("spike-driven-transformer", "learned", "skip", "int4", marks=pytest.mark.slow),
        pytest.param("spike-driven-transformer", "activity", "drop", "exact", marks=pytest.mark.slow),
        pytest.param("qkformer", "difference", "skip", "exact", marks=pytest.mark.slow),
        pytest.param("qkformer", "activity", "skip", "int4", marks=pytest.mark.slow),
        pytest.param("qkformer", "learned", "drop", "int8", marks=pytest.mark.slow),
        pytest.param("spikformer", "random", "drop", "int8", marks=pytest.mark.slow),
    ],
)
def test_spikes_and_logits_equal_onnx_runtime_bit_for_bit_on_any_number_of_threads(
    tmp_path: Path, family: str, criterion: TokenCriterion, rest: Rest, bits: str
) -> None:
    onnx, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    x = inputs_of(prepared(family, criterion, rest, bits), onnx, count=20)
    wanted = by_onnx_runtime(onnx, x)
    assert_lively(wanted)
    build_bundle(onnx, load_board("host"), bundle, golden=x[:2])
    for threads in (1, 2):
        assert_same_bits(wanted, by_session(bundle, x, threads=threads))


@pytest.mark.slow
def test_a_grid_gives_the_same_bits_step_by_step(tmp_path: Path) -> None:
    onnx, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    x = inputs_of(prepared("spike-driven-transformer", "grid", "skip", "int8"), onnx, mode="step")
    build_bundle(onnx, load_board("host"), bundle, golden=x[:2])
    wanted = by_onnx_runtime(onnx, x)
    assert_lively(wanted)
    assert_same_bits(wanted, by_session(bundle, x))


@pytest.mark.parametrize(
    ("board", "family", "criterion", "rest", "bits"),
    [
        ("qemu-cortex-a72", "spikformer", "difference", "skip", "int8"),
        pytest.param("qemu-cortex-a53", "spike-driven-transformer", "learned", "drop", "int4", marks=pytest.mark.slow),
        pytest.param("qemu-cortex-a72", "qkformer", "activity", "skip", "exact", marks=pytest.mark.slow),
        pytest.param("qemu-cortex-a76", "spikformer", "difference", "skip", "int8", marks=pytest.mark.slow),
    ],
)
def test_emulated_boards_equal_onnx_runtime_bit_for_bit(
    tmp_path: Path, board: str, family: str, criterion: TokenCriterion, rest: Rest, bits: str
) -> None:
    onnx, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    with emulated(board) as transport:
        x = inputs_of(prepared(family, criterion, rest, bits), onnx)
        build_bundle(onnx, load_board(board), bundle, golden=x[:2])
        assert_same_bits(by_onnx_runtime(onnx, x), by_board(bundle, x, transport, tmp_path))
