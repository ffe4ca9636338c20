"""A network that is small enough to be built in every test."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import networks

TINY = "tiny-spikformer"
ARGUMENTS: dict[str, Any] = {
    "T": 4,
    "in_channels": 3,
    "img_size_h": 16,
    "img_size_w": 16,
    "num_classes": 10,
    "patch_size": 4,
    "embed_dims": 32,
    "num_heads": 4,
    "depths": 1,
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the benchmarks know a tiny Spikformer."""
    monkeypatch.setitem(networks.NETWORKS, TINY, ("spikformer", ARGUMENTS))
    return TINY
