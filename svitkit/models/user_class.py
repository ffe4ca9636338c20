"""Networks of a user's own class, named ``module:callable``.

Importing and calling run the user's code. That happens only for a name that the user gave, to this process or in the
environment variable ``SVITKIT_TRUSTED_CLASSES`` (names divided by commas). A checkpoint that merely mentions such a
name is refused.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from svitkit.errors import ConfigError, UnsupportedError, unknown_name

TRUST_VARIABLE = "SVITKIT_TRUSTED_CLASSES"
_named_by_user: set[str] = set()


def is_user_class(text: str) -> bool:
    """Says whether a model name has the form ``module:callable``."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def trust(text: str) -> None:
    """Notes that the user of this process gave the name ``module:callable``."""
    _named_by_user.add(text)


def build_user_class(text: str, arguments: dict[str, Any]) -> nn.Module:
    """Imports and calls a user's class or function.

    Args:
        text: ``module:callable``; the module is also looked for in the working directory.
        arguments: keyword arguments of the call.

    Raises:
        ConfigError: the name was not given by the user, the module or the callable is missing, the call fails, or it
            returns no network.
    """
    trusted = _named_by_user | set(os.environ.get(TRUST_VARIABLE, "").split(","))
    if text not in trusted:
        raise ConfigError(
            f"this checkpoint was made from the class '{text}', and loading it would run that code. "
            f"If you trust it, set {TRUST_VARIABLE}={text}."
        )
    factory = _import_callable(text)
    try:
        model = factory(**arguments)
    except UnsupportedError:
        raise
    except Exception as error:  # the user's code may raise anything
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ConfigError(f"calling {text}({shown}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"calling '{text}' returned a {type(model).__name__}, wanted a torch.nn.Module.")
    return model


def _import_callable(text: str) -> Callable[..., Any]:
    module_name, _, attribute = text.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"cannot import '{module_name}' for '{text}': there is no module '{error.name}'. "
            f"Install it, or run svitkit in the folder that holds it."
        ) from None
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(f"importing '{module_name}' failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    found: object = getattr(module, attribute, None)
    if found is None:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise unknown_name(f"callable of module '{module_name}'", attribute, public)
    if not callable(found):
        raise ConfigError(f"'{text}' is a {type(found).__name__}, wanted a class or function that returns a network.")
    return found
