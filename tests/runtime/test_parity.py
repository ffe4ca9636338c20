"""One network, four computations: torch, ONNX Runtime, the bundle on this machine, the bundle on an emulated board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from svitkit.boards.board import load_board
from svitkit.runtime.build import build_bundle
from tests.runtime.family_networks import FAMILIES, Network
from tests.runtime.recordings import assert_agree, assert_lively, by_board, by_onnx_runtime, by_session, emulated

GOLDEN = 4


@pytest.fixture(params=list(FAMILIES))
def network(request: pytest.FixtureRequest, family_network: Callable[[str], Network]) -> Network:
    return family_network(request.param)


def test_every_layer_fires_and_classes_differ(network: Network) -> None:
    assert_lively(network.torch)
    assert len(set(network.torch.logits.argmax(1))) > 1


def test_onnx_runtime_agrees_with_torch(network: Network) -> None:
    assert_agree(network.torch, by_onnx_runtime(network.onnx, network.images[:, None]))


def test_the_bundle_on_this_machine_agrees_with_torch(network: Network, tmp_path: Path) -> None:
    build_bundle(network.onnx, load_board("host"), tmp_path / "bundle", golden=network.images[:GOLDEN, None])
    assert_agree(network.torch, by_session(tmp_path / "bundle", network.images[:, None]))


def test_the_bundle_on_an_emulated_cortex_a72_agrees_with_torch(network: Network, tmp_path: Path) -> None:
    board, bundle = "qemu-cortex-a72", tmp_path / "bundle"
    with emulated(board) as transport:
        build_bundle(network.onnx, load_board(board), bundle, golden=network.images[:GOLDEN, None])
        assert_agree(network.torch, by_board(bundle, network.images[:, None], transport, tmp_path))
