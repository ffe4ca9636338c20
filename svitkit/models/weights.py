"""Reading and writing tensors on disk, without ever running what a file says."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import nn

from svitkit.errors import ConfigError

StorageType = Literal["float32", "float16"]
WRAPPERS = ("state_dict", "model_state_dict", "model")


def dump_weights(model: nn.Module, dtype: StorageType, *, instead: Mapping[str, torch.Tensor] | None = None) -> bytes:
    """Serializes a network's state dict as safetensors.

    Args:
        model: the network.
        instead: tensors that are stored as they are, in place of those of the same name or beside the others.
        dtype: ``float16`` halves the weight matrices; vectors (biases, batch norms) stay float32.

    Raises:
        ConfigError: a weight is not finite, or too large for float16.
    """
    tensors: dict[str, torch.Tensor] = dict(instead or {})
    for name, value in model.state_dict().items():
        if name in tensors:
            continue
        tensors[name] = stored_tensor(name, value, dtype)
    return dump_safetensors(tensors)


def stored_tensor(name: str, value: torch.Tensor, dtype: StorageType) -> torch.Tensor:
    """Returns a copy of a tensor in the type in which it is stored.

    Args:
        name: its name, for the error message.
        value: a parameter or buffer.
        dtype: ``float16`` halves weight matrices.

    Raises:
        ConfigError: a value is not finite, or too large for float16.
    """
    halved = dtype == "float16" and value.is_floating_point() and value.ndim >= 2
    stored = value.detach().to("cpu", torch.float16 if halved else value.dtype, copy=True).contiguous()
    if stored.is_floating_point() and not bool(torch.isfinite(stored).all()):
        raise ConfigError(f"tensor '{name}' holds values that are not finite as {stored.dtype}: nothing was saved.")
    return stored


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file.

    Raises:
        ConfigError: the file is missing, truncated or no safetensors file.
    """
    try:
        return parse_safetensors(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the weights '{path}': {error.strerror}.") from None
    except SafetensorError as error:
        raise ConfigError(f"'{path}' is no whole safetensors file ({error}). Copy or download it again.") from None


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """Reads the state dict in a ``.pth`` file with PyTorch's restricted unpickler, which runs no code.

    The state dict may stand alone or under ``state_dict``, ``model_state_dict`` or ``model``. Beside it may stand the
    parsed command line of the training, an ``argparse.Namespace``, which is nothing but a container; timm's and many
    authors' own trainings leave it there.

    Raises:
        ConfigError: the file is missing, truncated, or holds anything but tensors in plain containers.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"cannot read the weights '{path}': {error.strerror}.") from None
    except pickle.UnpicklingError:
        raise ConfigError(
            f"'{path}' holds more than tensors, and reading that could run code. Nothing of it was run. "
            f"Save the state dict alone: torch.save(model.state_dict(), path), or use safetensors."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(
            f"'{path}' is no whole PyTorch file: {_first_line(error)}. Copy or download it again."
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ConfigError(f"'{path}' holds no state dict. Save one: torch.save(model.state_dict(), path).")
    return dict(content)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict from ``.safetensors``, ``.pth``, ``.pth.tar`` or ``.pt``.

    A ``module.`` prefix that distributed training leaves on every name is removed.

    Raises:
        ConfigError: the file is missing, damaged, of another kind, or could run code.
    """
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
    elif path.name.endswith((".pth", ".pt", ".pth.tar")):
        tensors = read_pickled(path)
    else:
        raise ConfigError(f"'{path}' has the ending '{path.suffix}', wanted .safetensors, .pth, .pth.tar or .pt.")
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def load_strictly(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Gives a network exactly these weights.

    Args:
        model: the network, in its final shape.
        tensors: one for each entry of its state dict; float16 and bfloat16 become float32.
        source: where they came from, for the error message.

    Raises:
        ConfigError: a name is missing or unknown, or a shape or type differs, or a value is not finite.
    """
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        parts = [
            f"{len(names)} {kind} ({some_names(names)})"
            for kind, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise ConfigError(f"'{source}' does not fit the network: {', '.join(parts)} tensors of {len(wanted)}.")
    for name, value in tensors.items():
        target = wanted[name]
        if value.shape != target.shape:
            raise ConfigError(
                f"'{source}': tensor '{name}' has shape {tuple(value.shape)}, but {tuple(target.shape)} is wanted."
            )
        if value.is_floating_point() != target.is_floating_point():
            raise ConfigError(f"'{source}': tensor '{name}' has type {value.dtype}, but {target.dtype} is wanted.")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ConfigError(f"'{source}': tensor '{name}' holds values that are not finite. The training diverged.")
    model.load_state_dict({name: value.to(wanted[name].dtype) for name, value in tensors.items()}, strict=True)


def some_names(names: list[str]) -> str:
    """Names the first three of them."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
