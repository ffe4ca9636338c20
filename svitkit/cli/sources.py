"""From the texts of the command line to a network and the data that fit it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svitkit.errors import ConfigError

if TYPE_CHECKING:
    from svitkit.data.dataset import Dataset
    from svitkit.models.checkpoint import Checkpoint


def load_network(
    text: str, *, weights: Path | None, data: str, timesteps: int | None, arguments: Sequence[str] = ()
) -> tuple[Checkpoint, Dataset]:
    """Finds a network and loads data, each knowing what only the other can tell.

    A checkpoint says into how many steps a recording is cut; of a user's class, or of a family with the weights of its
    authors, the data say shape and classes.

    Args:
        text: a name of the zoo, a checkpoint directory, ``module:callable``, or with weights a family.
        weights: state dict for ``module:callable`` or a family.
        data: kind of data, and path.
        timesteps: T for ``module:callable`` (4 if None) or a family.
        arguments: ``NAME=VALUE`` for ``module:callable`` or a family.

    Raises:
        ConfigError: one of them is wrong, or they do not fit each other.
    """
    from svitkit.data.load import load_data
    from svitkit.models.families import FAMILIES
    from svitkit.models.resolve import DEFAULT_TIMESTEPS, resolve_model
    from svitkit.models.spec import match_dataset
    from svitkit.models.user_class import is_user_class

    given = parse_arguments(arguments)
    if is_user_class(text) or (weights is not None and text in FAMILIES):
        dataset = load_data(data, timesteps=timesteps or DEFAULT_TIMESTEPS)
        checkpoint = resolve_model(text, weights=weights, dataset=dataset, timesteps=timesteps, arguments=given)
        return checkpoint, match_dataset(dataset, checkpoint.spec)
    checkpoint = resolve_model(text, weights=weights, arguments=given)
    steps = checkpoint.spec.timesteps
    if timesteps not in (None, steps):
        raise ConfigError(
            f"'{text}' was made for {steps} time steps, got --timesteps {timesteps}. Leave the option out."
        )
    return checkpoint, match_dataset(load_data(data, timesteps=steps), checkpoint.spec)


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Reads ``NAME=VALUE``; a value is JSON, several divided by commas, or else a text.

    Raises:
        ConfigError: a text has another form, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--argument '{text}' is wrong, wanted NAME=VALUE, for example num_heads=12.")
        if name in found:
            raise ConfigError(f"--argument {name} is given twice: {found[name]!r} and '{value}'. Leave one out.")
        try:
            found[name] = json.loads(f"[{value}]" if "," in value and value[0] not in "[{" else value)
        except ValueError:
            found[name] = value
    return found
