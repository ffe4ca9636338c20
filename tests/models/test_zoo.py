"""What the zoo promises about its networks."""

from pathlib import Path

import pytest
import torch

from svitkit.accuracy import accuracy
from svitkit.data import load_data
from svitkit.models.checkpoint import WEIGHTS_NAME, load_checkpoint
from svitkit.models.resolve import resolve_model
from svitkit.models.spec import match_dataset
from svitkit.models.weights import read_safetensors
from svitkit.presets import PRESETS
from svitkit.zoo import ZOO

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {"fashion-mnist": "fashion_mnist.npz", "nmnist": "nmnist_small_events.npz"}
LEAST = {
    "digits-spikformer": 97.0,
    "fashion-spikformer": 91.0,
    "fashion-sdt": 90.0,
    "fashion-qkformer": 90.0,
    "nmnist-spikformer": 90.0,
}
MAX_BYTES = 4_000_000
PACKED = sorted(set(ZOO) - {"digits-spikformer"})


def test_every_network_of_the_zoo_can_be_trained_again_by_its_name_and_has_an_accuracy_to_keep() -> None:
    assert "digits-spikformer" in ZOO
    assert set(ZOO) <= set(PRESETS)
    assert set(ZOO) <= set(LEAST)


@pytest.mark.parametrize("name", ZOO)
def test_a_network_says_the_command_that_makes_it_and_what_it_reaches(name: str) -> None:
    told = load_checkpoint(ZOO[name]).spec.provenance
    readme = (ZOO[name] / "README.md").read_text()
    assert f"    svitkit train {name} --data {PRESETS[name].data}" in readme
    assert f"{told['test_accuracy_percent']:.2f} %" in readme
    assert told["architecture"] == name
    assert told["test_accuracy_percent"] >= LEAST[name]


@pytest.mark.parametrize("name", ZOO)
def test_a_network_is_small_and_its_parameters_are_counted(name: str) -> None:
    checkpoint = load_checkpoint(ZOO[name])
    assert (ZOO[name] / WEIGHTS_NAME).stat().st_size <= MAX_BYTES
    assert checkpoint.spec.original_parameter_bytes == checkpoint.parameter_bytes()
    assert all(value.dtype == torch.float32 for value in checkpoint.model.parameters())


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_network_is_stored_as_float16_and_names_its_command(name: str) -> None:
    tensors = read_safetensors(ZOO[name] / WEIGHTS_NAME)
    assert {value.dtype for value in tensors.values() if value.ndim >= 2} == {torch.float16}
    told = load_checkpoint(ZOO[name]).spec.provenance
    assert told["stored_as"] == "float16"
    assert told["command"].startswith(f"svitkit train {name} --data {PRESETS[name].data}:")


def measure_again(name: str, data: str) -> None:
    checkpoint = resolve_model(name)
    dataset = match_dataset(load_data(data, timesteps=checkpoint.spec.timesteps), checkpoint.spec)
    measured = accuracy(checkpoint.model, dataset, "test", timesteps=checkpoint.spec.timesteps)
    assert measured >= LEAST[name]
    assert measured == pytest.approx(checkpoint.spec.provenance["test_accuracy_percent"], abs=0.3)


def test_the_digits_network_is_as_good_as_it_says() -> None:
    measure_again("digits-spikformer", "digits")


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_network_is_as_good_as_it_says(name: str) -> None:
    kind = PRESETS[name].data
    if not (REAL_DATA / FILES[kind]).is_file():
        pytest.skip(f"needs {FILES[kind]}")
    measure_again(name, f"{kind}:{REAL_DATA / FILES[kind]}")
