"""Integer networks: ONNX Runtime and the bundle give the same spikes and logits, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svitkit.boards.board import load_board
from svitkit.export.pipeline import export_onnx
from svitkit.onnx_reference import ReferenceSession
from svitkit.proven import random_samples
from svitkit.runtime.build import build_bundle
from svitkit.runtime.session import Session
from tests.export.conftest import build
from tests.export.quantized import quantize

IMAGES = 20


@pytest.mark.parametrize(
    ("family", "bits", "static"),
    [("spikformer", 4, True), ("spike-driven-transformer", 8, True), ("qkformer", 8, True), ("qkformer", 4, False)],
)
def test_spikes_and_logits_equal_onnx_runtime_bit_for_bit(tmp_path: Path, family: str, bits: int, static: bool) -> None:
    path = tmp_path / "model.onnx"
    metadata = export_onnx(quantize(build(family, static), bits), path)
    x = random_samples(metadata, count=IMAGES, seed=0)
    build_bundle(path, load_board("host"), tmp_path / "bundle", golden=x[:2])
    reference = ReferenceSession(path, spikes=True)
    with Session(tmp_path / "bundle") as session:
        for sample in x:
            wanted = reference.run(sample[0] if static else sample[:, 0])
            logits, spikes = session.run_with_spikes(sample)
            np.testing.assert_array_equal(np.asarray(logits).reshape(-1), wanted.logits)
            assert spikes.keys() == wanted.spikes.keys()
            for name, fired in wanted.spikes.items():
                np.testing.assert_array_equal(spikes[name].reshape(fired.shape), fired, err_msg=name)
