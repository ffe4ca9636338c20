"""What the zoo promises about its networks."""

import pytest

from svitkit.accuracy import accuracy
from svitkit.data import load_data
from svitkit.models.checkpoint import WEIGHTS_NAME
from svitkit.models.resolve import resolve_model
from svitkit.models.spec import match_dataset
from svitkit.presets import PRESETS
from svitkit.zoo import ZOO


def test_every_network_of_the_zoo_can_be_trained_again_by_its_name() -> None:
    assert set(ZOO) <= set(PRESETS)


@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_the_zoo_is_as_good_and_as_small_as_it_says(name: str) -> None:
    checkpoint = resolve_model(name)
    said = checkpoint.spec.provenance
    dataset = match_dataset(load_data(said["data"]), checkpoint.spec)
    measured = accuracy(checkpoint.model, dataset, "test", timesteps=checkpoint.spec.timesteps)
    assert measured >= 97
    assert measured == pytest.approx(said["test_accuracy_percent"], abs=0.3)
    assert (ZOO[name] / WEIGHTS_NAME).stat().st_size <= 2_000_000
    assert checkpoint.spec.original_parameter_bytes == checkpoint.parameter_bytes()
