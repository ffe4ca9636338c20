"""Data, networks and one Ray cluster for all tests that need them; what a test changes it copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from svitkit.data import Dataset, load_data
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.resolve import resolve_model
from tests.compress.networks import firing_checkpoint


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="session")
def whole() -> Checkpoint:
    """The trained network of the zoo."""
    return resolve_model("digits-spikformer")


@pytest.fixture(scope="session")
def checkpoint(digits: Dataset) -> Checkpoint:
    """A small network that was not trained, but fires."""
    return firing_checkpoint("spikformer", digits)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'svitkit[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
