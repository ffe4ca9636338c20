"""What a network computed, wherever it ran: logits, and every layer's spikes in the order of the exported graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from svitkit.boards.board import load_board
from svitkit.boards.transports import Transport, open_transport
from svitkit.errors import ConfigError
from svitkit.manifest import read_manifest
from svitkit.onnx_reference import ReferenceSession
from svitkit.runtime.bench.runner_process import Runner
from svitkit.runtime.session import Session

Array = NDArray[Any]
SPIKE_AGREEMENT = 0.999


@dataclass(frozen=True)
class Recording:
    """Logits (N, classes), and spikes (N, ...) by layer, flattened over time and neurons."""

    logits: Array
    spikes: dict[str, Array]


def stack(runs: Sequence[tuple[Array, dict[str, Array]]]) -> Recording:
    """Puts inferences behind one another."""
    return Recording(
        np.stack([logits.reshape(-1) for logits, _ in runs]),
        {name: np.stack([spikes[name].reshape(-1) for _, spikes in runs]).astype(np.uint8) for name in runs[0][1]},
    )


def by_onnx_runtime(onnx: Path, inputs: Array) -> Recording:
    """Runs inputs, as :func:`svitkit.proven.samples` shapes them, in ONNX Runtime."""
    session = ReferenceSession(onnx, spikes=True)
    frames = inputs[:, 0] if session.metadata.static_input else inputs[:, :, 0]
    runs = [session.run(x) for x in frames]
    return stack([(run.logits, {name: s.astype(bool) for name, s in run.spikes.items()}) for run in runs])


def by_session(bundle: Path, inputs: Array, *, threads: int = 1) -> Recording:
    """Runs inputs in this process, through the bundle's libsvit."""
    with Session(bundle, threads=threads) as session:
        return stack([session.run_with_spikes(x) for x in inputs])


@contextmanager
def emulated(board: str) -> Iterator[Transport]:
    """Opens an emulated board; the test is skipped where there is no emulator."""
    with ExitStack() as opened:
        try:
            transport = opened.enter_context(open_transport(load_board(board)))
        except ConfigError as error:
            pytest.skip(str(error))
        yield transport


def by_board(bundle: Path, inputs: Array, transport: Transport, work: Path) -> Recording:
    """Runs all inputs in one process of ``svit-run``. For sequence mode."""
    model = read_manifest(bundle).model
    assert model.mode == "sequence"
    runner = Runner(
        transport=transport,
        bundle=transport.push(bundle),
        mode=model.mode,
        timesteps=model.timesteps,
        classes=len(model.class_names),
        work=work,
        timeout_s=600,
    )
    logits, spikes = runner.infer_with_spikes(inputs)
    return Recording(logits, in_graph_order(bundle, spikes.reshape(len(inputs), -1)))


def in_graph_order(bundle: Path, records: Array) -> dict[str, Array]:
    """Splits the bytes of ``svit-run --spikes`` into layers and undoes the storage order."""
    lines = [line.split() for line in (bundle / "program.txt").read_text().splitlines()]
    shapes = {words[1]: [int(word) for word in words[7:]] for words in lines if words[0] == "tensor"}
    taps = {words[1]: shapes[words[2]] for words in lines if words[0] == "tap"}
    orders = {words[1]: [int(word) for word in words[3:]] for words in lines if words[0] == "taporder"}
    ends = np.cumsum([np.prod(shape) for shape in taps.values()])
    pieces = np.split(records, ends[:-1], axis=1)
    return {
        name: piece.reshape(-1, *shape).transpose(0, *(axis + 1 for axis in orders[name])).reshape(len(records), -1)
        for (name, shape), piece in zip(taps.items(), pieces, strict=True)
    }


def assert_same_bits(wanted: Recording, got: Recording) -> None:
    """Every spike and every bit of every logit is the same; names the first layer that differs."""
    assert got.spikes.keys() == wanted.spikes.keys()
    for name, spikes in wanted.spikes.items():
        different = (got.spikes[name] != spikes).any(axis=1)
        assert not different.any(), f"{name}: spikes of {different.sum()} of {len(spikes)} inputs differ"
    assert got.logits.dtype == wanted.logits.dtype == np.float32
    np.testing.assert_array_equal(got.logits.view(np.uint32), wanted.logits.view(np.uint32), err_msg="logits")


def assert_agree(wanted: Recording, got: Recording) -> None:
    """Every class is the same, and so are nearly all spikes of every layer: float32 sums may differ in their order."""
    assert (got.logits.argmax(1) == wanted.logits.argmax(1)).all()
    assert set(got.spikes) == set(wanted.spikes)
    for name, spikes in wanted.spikes.items():
        agreement = (got.spikes[name].reshape(spikes.shape) == spikes).mean()
        assert agreement >= SPIKE_AGREEMENT, f"{name}: {agreement:.4%}"


def assert_lively(recording: Recording) -> None:
    """Every layer fires, none always, and not all logits are alike: the comparison is worth something."""
    rates = {name: float(spikes.mean()) for name, spikes in recording.spikes.items()}
    assert all(0.001 < rate < 0.99 for rate in rates.values()), rates
    assert (recording.logits != recording.logits[0]).any()
