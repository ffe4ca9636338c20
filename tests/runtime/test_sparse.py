"""Weights without zeros in a bundle: chosen where that is smaller, expanded when it is loaded, the same to the bit."""

from __future__ import annotations

import copy
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from svitkit.boards.board import load_board
from svitkit.cli.bundle_view import view_bundle
from svitkit.compress.zeros import prunable_weights, set_to_zero
from svitkit.errors import ConfigError
from svitkit.manifest import Manifest, Mode
from svitkit.models.liven import liven
from svitkit.models.size import sparse_layers
from svitkit.runtime.build import build_bundle
from svitkit.runtime.session import Session
from svitkit.runtime.sparse import is_sparse, sparse_array
from tests.export.conftest import build
from tests.export.quantized import quantize
from tests.runtime import bundles
from tests.runtime.recordings import assert_lively, assert_same_bits, by_board, by_session, emulated
from tests.runtime.test_integer_parity import Case, case

SPARSITY = 0.7
SHARED_BYTES = 300_000
"""By so much the resident part of shared libraries differs from run to run."""


def expanded(array: NDArray[Any]) -> NDArray[Any]:
    """What libsvit makes of the stored parts, in numpy."""
    found = sparse_array(array)
    assert found is not None
    bits = np.full(array.size, found.background, f"uint{8 * array.itemsize}")
    bits[np.unpackbits(found.bitmap, count=array.size, bitorder="little").astype(bool)] = found.values.view(bits.dtype)
    return bits.view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int16, np.uint8])
def test_an_array_is_its_background_and_the_rest(dtype: type) -> None:
    rng = np.random.default_rng(0)
    array = np.where(rng.random((13, 9)) < 0.8, 99, rng.integers(0, 50, (13, 9))).astype(dtype)
    np.testing.assert_array_equal(expanded(array), array)


def test_a_negative_zero_is_kept() -> None:
    array = np.zeros(100, np.float32)
    array[7] = -0.0
    assert np.signbit(expanded(array)).nonzero()[0].tolist() == [7]


@pytest.mark.parametrize("zeros", [0.0, 0.1, 1.0])
def test_an_array_stays_whole_where_little_is_gained(zeros: float) -> None:
    array = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    array[: int(1000 * zeros)] = 0
    assert sparse_array(array) is None


def test_a_layer_counts_as_sparse_from_a_quarter_of_zeros_on() -> None:
    assert is_sparse(np.array([0, 1, 1, 1]))
    assert not is_sparse(np.array([0, 1, 1, 1, 1]))


def pruned(bits: int, *, family: str = "spikformer") -> Any:
    """A network of which most weights of every layer are 0, and that fires nevertheless."""
    network, generator = build(family), torch.Generator().manual_seed(0)
    network = replace(network, model=copy.deepcopy(network.model))
    weights = prunable_weights(network.model)
    set_to_zero(network.model, {n: torch.rand(w.shape, generator=generator) < SPARSITY for n, w in weights.items()})
    liven(network.model, torch.randn(4, 16, *network.spec.input_shape, generator=generator))
    network = network if bits == 32 else quantize(network, bits)
    return replace(
        network, spec=replace(network.spec, sparse=tuple(sparse_layers(network.model, network.spec.quantization)))
    )


@dataclass(frozen=True)
class Built:
    """One network stored in both ways."""

    network: Case
    sparse: Manifest
    dense: Manifest


def build_both(folder: Path, bits: int, board: str = "host", mode: Mode = "sequence") -> Built:
    network = case(pruned(bits), folder / "model.onnx", mode=mode)
    sparse, dense = (
        build_bundle(network.onnx, load_board(board), folder / name, golden=network.inputs[:2], stores_sparse=way)
        for name, way in (("sparse", True), ("dense", False))
    )
    return Built(network, sparse, dense)


@pytest.mark.parametrize(
    ("bits", "mode"), [(32, "sequence"), (32, "step"), (8, "sequence"), (8, "step"), (4, "sequence"), (2, "sequence")]
)
def test_spikes_and_logits_are_the_same_bits_as_stored_whole(tmp_path: Path, bits: int, mode: Mode) -> None:
    built = build_both(tmp_path, bits, mode=mode)
    assert built.sparse.sparse
    assert not built.dense.sparse
    assert built.sparse.weights_bytes < built.dense.weights_bytes
    wanted = by_session(tmp_path / "dense", built.network.inputs)
    assert_same_bits(wanted, by_session(tmp_path / "sparse", built.network.inputs))


@pytest.mark.parametrize("board", ["qemu-cortex-a72", "qemu-cortex-a53"])
@pytest.mark.parametrize("bits", [32, pytest.param(8, marks=pytest.mark.slow)])
def test_an_emulated_board_expands_them_too(tmp_path: Path, board: str, bits: int) -> None:
    with emulated(board) as transport:
        built = build_both(tmp_path, bits, board)
        wanted = by_board(tmp_path / "dense", built.network.inputs, transport, tmp_path)
        assert built.sparse.sparse
        assert_same_bits(wanted, by_board(tmp_path / "sparse", built.network.inputs, transport, tmp_path))


def test_a_pruned_network_still_fires(tmp_path: Path) -> None:
    assert_lively(case(pruned(32), tmp_path / "model.onnx").wanted)


def test_the_manifest_says_which_layers_are_sparse_and_what_they_take(tmp_path: Path) -> None:
    built = build_both(tmp_path, 32)
    parts = built.sparse.sparse
    stored, whole = sum(part.stored_bytes for part in parts), sum(part.expanded_bytes for part in parts)
    assert all(part.stored_bytes < part.expanded_bytes for part in parts)
    alignment = 64 * 3 * len(parts)
    assert abs(built.dense.weights_bytes - built.sparse.weights_bytes - (whole - stored)) <= alignment
    assert abs(built.sparse.workspace_bytes - built.dense.workspace_bytes - whole) <= alignment
    shown = view_bundle(tmp_path / "sparse")
    assert len(shown[0]["manifest"].sparse) == len(parts)


def test_zeros_whose_sign_a_batch_norm_turned_are_zeros_too(tmp_path: Path) -> None:
    network = pruned(32)
    for module in network.model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.neg_()
    onnx = case(network, tmp_path / "model.onnx")
    manifest = build_bundle(onnx.onnx, load_board("host"), tmp_path / "bundle", golden=onnx.inputs[:2])
    parts = manifest.sparse
    share = sum(part.stored_bytes for part in parts) / sum(part.expanded_bytes for part in parts)
    assert share == pytest.approx(1 - SPARSITY + 1 / 32, abs=0.02)


def test_memory_is_the_plan_and_a_floor(tmp_path: Path) -> None:
    build_both(tmp_path, 32)
    floors = {}
    for name in ("sparse", "dense"):
        inputs = tmp_path / name / "golden_input.bin"
        command = [tmp_path / name / "svit-run", tmp_path / name, "--input", inputs, "--count", "2", "--repeat", "5"]
        report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        floors[name] = report["floor_bytes"]
    assert abs(floors["sparse"] - floors["dense"]) < SHARED_BYTES


STORED = "tensor 7 bits uint8 weights 0 1 1\ntensor 8 some float32 weights 64 1 7\nexpand 1 7 8 0\n"
SPARSE_PROGRAM = (
    bundles.PROGRAM.replace("weights 32", "weights 92")
    .replace("workspace 320", "workspace 352")
    .replace("w float32 weights 0", "w float32 workspace 320")
    .replace("state 2", f"{STORED}state 2")
)


@pytest.fixture
def sparse_bundle(tiny_bundle: Path) -> Path:
    """The tiny network, whose eighth weight is 0, with its weights stored without it."""
    write(tiny_bundle, SPARSE_PROGRAM, 0b01111111)
    return tiny_bundle


def write(bundle: Path, program: str, bitmap: int) -> None:
    (bundle / "program.txt").write_text(program)
    (bundle / "weights.bin").write_bytes(bytes([bitmap]).ljust(64, b"\0") + bundles.WEIGHTS[:7].tobytes())
    (bundle / "manifest.json").unlink()
    bundles.seal(bundle, bundles.HOST, bundles.metadata(4))


def test_a_program_expands_weights_before_its_first_call(sparse_bundle: Path) -> None:
    frame = np.full((1, 8), 1.5, np.float32)
    with Session(sparse_bundle) as session:
        logits, spikes = session.run_with_spikes(frame)
    wanted_logits, wanted_spikes = bundles.expected(np.repeat(frame, 4, axis=0))
    np.testing.assert_array_equal(logits[0], wanted_logits.mean(axis=0))
    np.testing.assert_array_equal(spikes["fire"].reshape(4, 8), wanted_spikes)


@pytest.mark.parametrize("bitmap", [0b00111111, 0b11111111, 0])
def test_a_bitmap_that_does_not_fit_its_values_is_refused(sparse_bundle: Path, bitmap: int) -> None:
    write(sparse_bundle, SPARSE_PROGRAM, bitmap)
    with pytest.raises(ConfigError, match="the bitmap of 'w' does not fit its values"):
        Session(sparse_bundle)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("expand 1 7 8 0", "expand 1 7 8", "'expand' wants 4 values, got 3"),
        ("expand 1 7 8 0", "expand 1 7 9 0", "tensor id is '9'"),
        ("expand 1 7 8 0", "expand 8 7 8 0", "tensor 'some' does not lie in 'workspace'"),
        ("expand 1 7 8 0", "expand 1 4 8 0", "tensor 'spikes' does not lie in 'weights'"),
        ("expand 1 7 8 0", "expand 1 7 0 0", "tensor 'input' does not lie in 'weights'"),
        ("expand 1 7 8 0", "expand 1 7 7 0", "the values are 'uint8', not 'float32'"),
        ("expand 1 7 8 0", "expand 1 8 8 0", "the bitmap has 28 bytes for 8 elements"),
        ("expand 1 7 8 0", "expand 1 7 8 4294967296", "background is '4294967296', the largest allowed is 4294967295"),
    ],
)
def test_an_expansion_that_makes_no_sense_is_refused(sparse_bundle: Path, old: str, new: str, says: str) -> None:
    write(sparse_bundle, SPARSE_PROGRAM.replace(old, new), 0b01111111)
    with pytest.raises(ConfigError, match=says):
        Session(sparse_bundle)


def test_a_bit_behind_the_last_element_is_refused(sparse_bundle: Path) -> None:
    program = SPARSE_PROGRAM.replace("workspace 320 1 8", "workspace 320 1 7").replace(
        "weights 64 1 7", "weights 64 1 6"
    )
    write(sparse_bundle, program, 0b10011111)
    with pytest.raises(ConfigError, match="does not fit its values"):
        Session(sparse_bundle)


def test_a_network_without_zeros_is_stored_whole(tmp_path: Path) -> None:
    network = case(build("spikformer"), tmp_path / "model.onnx")
    manifest = build_bundle(network.onnx, load_board("host"), tmp_path / "bundle", golden=network.inputs[:2])
    assert not manifest.sparse
    assert "expand" not in (tmp_path / "bundle" / "program.txt").read_text()
