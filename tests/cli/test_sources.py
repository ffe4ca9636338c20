from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svitkit.cli.sources import load_network, parse_arguments
from svitkit.errors import ConfigError
from tests.models.official_states import fitted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("num_heads=12", 12),
        ("num_heads=2,4,8", [2, 4, 8]),
        ("num_heads=[2, 4, 8]", [2, 4, 8]),
        ("pooling_stat=0011", "0011"),
        ("pool_after_lif=false", False),
        ("mlp_ratio=4.0", 4.0),
        ("name=two words", "two words"),
        ("names=a,b", "a,b"),
        ("empty=", ""),
    ],
)
def test_the_value_of_an_argument_is_read_as_what_it_looks_like(text: str, value: Any) -> None:
    assert parse_arguments([text]) == {text.partition("=")[0]: value}


@pytest.mark.parametrize(
    ("texts", "says"),
    [(["num_heads"], "wanted NAME=VALUE"), (["=3"], "wanted NAME=VALUE"), (["a=1", "a=2"], "given twice: 1 and '2'")],
)
def test_an_argument_of_another_form_is_refused(texts: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_arguments(texts)


@pytest.fixture
def npz(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{key}": rng.integers(0, 256, (count, 3, 16, 16)).astype(np.uint8)
        if key == "x"
        else np.arange(count) % 5
        for part, count in (("train", 40), ("test", 10))
        for key in "xy"
    }
    np.savez(tmp_path / "data.npz", **arrays)
    return f"npz:{tmp_path / 'data.npz'}"


def test_a_family_takes_weights_of_its_authors_and_what_they_do_not_tell(npz: str, tmp_path: Path) -> None:
    torch.save(fitted("spikformer-cifar").state, tmp_path / "official.pth")
    checkpoint, dataset = load_network(
        "spikformer", weights=tmp_path / "official.pth", data=npz, timesteps=2, arguments=["num_heads=4"]
    )
    assert checkpoint.spec.timesteps == 2
    assert checkpoint.spec.arguments["num_heads"] == 4
    assert dataset.normalization == checkpoint.spec.normalization


def test_a_packaged_network_takes_neither_weights_nor_arguments(tmp_path: Path) -> None:
    for given in ({"weights": tmp_path / "x.pth"}, {"weights": None, "arguments": ["num_heads=4"]}):
        with pytest.raises(ConfigError, match="'digits-spikformer' brings its own"):
            load_network("digits-spikformer", data="digits", timesteps=None, **given)


def test_the_program_asks_for_the_arguments_and_takes_them(npz: str, tmp_path: Path, svitkit: Any) -> None:
    torch.save({"state_dict": fitted("spikformer-cifar").state}, tmp_path / "official.pth.tar")
    command = ("evaluate", "spikformer", "--weights", "official.pth.tar", "--data", npz, "--json")
    asked = svitkit(*command)
    assert asked.returncode == 1
    assert "--argument num_heads=" in asked.stderr
    assert "--timesteps T" in asked.stderr
    done = svitkit(*command, "--argument", "num_heads=4", "--timesteps", "4")
    assert done.returncode == 0, done.stderr
    assert '"accuracy_percent"' in done.stdout
