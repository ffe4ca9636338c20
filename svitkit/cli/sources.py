"""From the texts of the command line to a network and the data that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.errors import ConfigError

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint

DEFAULT_TIMESTEPS = 4


def load_network(text: str, *, weights: Path | None, data: str, timesteps: int | None) -> tuple[Checkpoint, Dataset]:
    """Finds a network and loads data, each knowing what only the other can tell.

    A checkpoint says into how many steps a recording is cut; of a user's class the data say shape and classes.

    Args:
        text: a name of the zoo, a checkpoint directory, or ``module:callable``.
        weights: state dict for ``module:callable``.
        data: kind of data, and path.
        timesteps: T for ``module:callable``; 4 if None.

    Raises:
        ConfigError: one of them is wrong, or they do not fit each other.
    """
    from svitkit.data.load import load_data
    from svitkit.models.checkpoint import resolve_model
    from svitkit.models.spec import match_dataset
    from svitkit.models.user_class import is_user_class

    if is_user_class(text):
        steps = timesteps or DEFAULT_TIMESTEPS
        dataset = load_data(data, timesteps=steps)
        return resolve_model(text, weights=weights, dataset=dataset, timesteps=steps), dataset
    checkpoint = resolve_model(text, weights=weights)
    steps = checkpoint.spec.timesteps
    if timesteps not in (None, steps):
        raise ConfigError(
            f"'{text}' was made for {steps} time steps, got --timesteps {timesteps}. Leave the option out."
        )
    return checkpoint, match_dataset(load_data(data, timesteps=steps), checkpoint.spec)
