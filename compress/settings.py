"""A method's settings as they are written on the command line: ``epsilon=1``, ``rates=0.1,0.3,0.5``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from svitkit.errors import ConfigError

Number = TypeVar("Number", int, float)
WORDS = {"none": None, "true": True, "false": False}


def read_settings(texts: Sequence[str]) -> dict[str, object]:
    """Reads settings; whether a method knows them and takes their values is checked with its options.

    Args:
        texts: each ``name=value``; values are numbers, names, ``true``, ``false``, ``none``, or several of these
            divided by commas.

    Returns:
        Values by name.

    Raises:
        ConfigError: a text has no name or no value, or two have the same name.
    """
    settings: dict[str, object] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        parts = [_scalar(part.strip()) for part in value.split(",") if part.strip()]
        if not name or not parts:
            raise ConfigError(f"'{text}' sets nothing. Write NAME=VALUE, for example epsilon=1 or rates=0.1,0.3,0.5.")
        if name in settings:
            raise ConfigError(f"'{name}' is set twice. Divide several values by commas: {name}=A,B.")
        settings[name] = tuple(parts) if "," in value else parts[0]
    return settings


def told_settings(texts: Sequence[str], **options: object) -> dict[str, object]:
    """Reads settings, and adds those that have an option of their own on the command line.

    Args:
        texts: as for :func:`read_settings`.
        options: values by name; None where the option was not given.

    Raises:
        ConfigError: a text is no setting, or sets what an option sets.
    """
    settings = read_settings(texts)
    for name, value in options.items():
        if value is not None and name in settings:
            raise ConfigError(f"'{name}' is set twice: with --set and with --{name.replace('_', '-')}.")
    return {**settings, **{name: value for name, value in options.items() if value is not None}}


def in_order(values: tuple[Number, ...], what: str, *, falling: bool = False) -> tuple[Number, ...]:
    """Returns values as they are, if each is above the one before it, or below if they are to fall.

    Raises:
        ValueError: they are not.
    """
    if list(values) != sorted(set(values), reverse=falling):
        raise ValueError(f"{what} must {'descend' if falling else 'ascend'} without repetition")
    return values


def _scalar(text: str) -> object:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
