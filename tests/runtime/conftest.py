from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime import bundles
from tests.runtime.family_networks import Network, make_network


@pytest.fixture(scope="session")
def built_host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network for this machine, shared: not to be changed."""
    return bundles.make_bundle(tmp_path_factory.mktemp("host") / "bundle", bundles.HOST)


@pytest.fixture(scope="session")
def built_arm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network for a Cortex-A72, shared: not to be changed."""
    return bundles.make_bundle(tmp_path_factory.mktemp("arm") / "bundle", bundles.ARM)


@pytest.fixture(scope="session")
def host_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as one program for this machine, shared: not to be changed."""
    return bundles.make_single_file(tmp_path_factory.mktemp("host") / "tiny", bundles.HOST)


@pytest.fixture(scope="session")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as one program for aarch64, shared: not to be changed."""
    return bundles.make_single_file(tmp_path_factory.mktemp("arm") / "tiny", bundles.ARM)


@pytest.fixture
def tiny_bundle(built_host_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny network for this machine, to be changed at will."""
    return Path(shutil.copytree(built_host_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def family_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    """Makes a small network of a family once a session."""

    @functools.cache
    def make(family: str) -> Network:
        return make_network(family, tmp_path_factory.mktemp(family))

    return make
