"""Checkpoint directories: ``model.safetensors`` and ``svit.json``, and every other way to name a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError, SvitError, unknown_name
from svitkit.files import staged_directory
from svitkit.manifest import from_json, to_json
from svitkit.models.families import FAMILIES, build_family
from svitkit.models.neurons import neuron_layers
from svitkit.models.plan import apply_plan
from svitkit.models.quantized import (
    QuantizedWeight,
    check_quantized,
    quantize_input,
    read_quantized,
    stored_tensors,
)
from svitkit.models.run import example_input, forward_logits
from svitkit.models.size import layer_parameters, parameter_bytes
from svitkit.models.spec import ModelSpec
from svitkit.models.user_class import build_user_class, is_user_class, trust
from svitkit.models.weights import StorageType, dump_weights, load_strictly, read_safetensors, read_weights
from svitkit.zoo import ZOO

WEIGHTS_NAME = "model.safetensors"
SPEC_NAME = "svit.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network with what is known about it.

    Attributes:
        model: the network in evaluation mode, pruned as the plan says.
        spec: how it was built and how it is fed.
        quantized: integers and scales of the layers that ``spec.quantization`` names; the network holds their products.
    """

    model: nn.Module
    spec: ModelSpec
    quantized: Mapping[str, QuantizedWeight] = field(default_factory=dict)

    def parameter_bytes(self) -> int:
        """Returns the bytes of the parameters as deployed, integer weights at their width."""
        return parameter_bytes(self.model, example_input(self.spec), self.spec.quantization)

    def parameter_count(self) -> int:
        """Returns the number of weights and biases as deployed, whatever their width."""
        return sum(layer_parameters(self.model, example_input(self.spec)).values())


def build_model(spec: ModelSpec) -> nn.Module:
    """Builds a checkpoint's network with fresh weights: first the original, then its plan's channels are removed.

    If the description quantizes the input, the network rounds what it is given. The random state of the caller does not
    change.

    Raises:
        ConfigError: family, arguments or plan are wrong.
    """
    with torch.random.fork_rng(devices=[]):
        if is_user_class(spec.family):
            model = build_user_class(spec.family, spec.arguments)
        else:
            model = build_family(spec.family, spec.arguments)
    if spec.plan is not None:
        apply_plan(model, spec.plan)
    quantize_input(model, spec.quantization)
    return model.eval()


def save_checkpoint(
    path: Path,
    model: nn.Module,
    spec: ModelSpec,
    *,
    dtype: StorageType = "float32",
    quantized: Mapping[str, QuantizedWeight] | None = None,
) -> None:
    """Writes a checkpoint directory, whole or not at all.

    Args:
        path: the directory; one that exists is replaced if it is a checkpoint.
        model: the network, pruned as ``spec.plan`` says.
        spec: what belongs to it.
        dtype: type in which weight matrices are stored; loading makes them float32 again.
        quantized: integers and scales of every layer that ``spec.quantization`` names; they are stored as they are.

    Raises:
        ConfigError: a weight is not finite, is not its integers times its scale, or ``path`` is something else than a
            checkpoint.
    """
    check_target(path)
    check_quantized(model, spec.quantization, quantized or {})
    integers = [stored_tensors(layer, weight) for layer, weight in (quantized or {}).items()]
    weights = dump_weights(model, dtype, instead={name: t for layer in integers for name, t in layer.items()})
    with staged_directory(path) as staged:
        (staged / WEIGHTS_NAME).write_bytes(weights)
        (staged / SPEC_NAME).write_text(to_json(spec, ModelSpec))


def check_target(path: Path) -> None:
    """Checks that a checkpoint may be written to a path: it is free, an empty directory or an older checkpoint.

    Raises:
        ConfigError: something else is there.
    """
    if path.exists() and not (path / SPEC_NAME).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"'{path}' exists and is no checkpoint. Choose another name, or remove it.")


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint directory.

    Raises:
        ConfigError: a file is missing or damaged, or the weights do not fit the network that ``svit.json`` describes.
    """
    for name in (SPEC_NAME, WEIGHTS_NAME):
        if not (path / name).is_file():
            raise ConfigError(f"'{path}' is no checkpoint: it has no {name}. Make one with 'svitkit train'.")
    spec = from_json((path / SPEC_NAME).read_bytes(), ModelSpec, source=str(path / SPEC_NAME))
    model = build_model(spec)
    source, tensors = str(path / WEIGHTS_NAME), read_safetensors(path / WEIGHTS_NAME)
    quantized = {} if spec.quantization is None else read_quantized(tensors, spec.quantization, model, source)
    load_strictly(model, tensors, source)
    return Checkpoint(model=model, spec=spec, quantized=quantized)


def checkpoint_sha256(checkpoint: Checkpoint | Path) -> str:
    """Returns a hash of a network's weights and description, the same in memory and after saving as float32.

    Raises:
        ConfigError: the path is no checkpoint.
    """
    if isinstance(checkpoint, Path):
        checkpoint = load_checkpoint(checkpoint)
    digest = hashlib.sha256(json.dumps(json.loads(to_json(checkpoint.spec, ModelSpec)), sort_keys=True).encode())
    for name, value in sorted(checkpoint.model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def resolve_model(
    text: str,
    *,
    weights: Path | None = None,
    dataset: Dataset | None = None,
    timesteps: int = 4,
    arguments: dict[str, Any] | None = None,
) -> Checkpoint:
    """Finds the network that a name stands for.

    Args:
        text: a name of the zoo, a checkpoint directory, or ``module:callable``.
        weights: state dict for ``module:callable``; without it the callable's own weights count.
        dataset: for ``module:callable``, tells the shape, kind and normalization of the input and the classes.
        timesteps: for ``module:callable``, T.
        arguments: for ``module:callable``, keyword arguments of the call.

    Raises:
        ConfigError: nothing has that name, or what has it cannot be used.
        UnsupportedError: the network contains neurons that svitkit cannot express.
    """
    user_class = is_user_class(text)
    if not user_class and (weights is not None or arguments is not None):
        raise ConfigError(f"weights and arguments go with 'module:callable', but '{text}' brings its own.")
    if user_class:
        if dataset is None:
            raise ConfigError(f"'{text}' needs data: they tell the shape of its input and its classes.")
        return _resolve_user_class(text, weights, dataset, timesteps, arguments or {})
    if text in ZOO:
        return load_checkpoint(ZOO[text])
    path = Path(text)
    if path.is_dir():
        return load_checkpoint(path)
    if text in FAMILIES:
        raise ConfigError(f"'{text}' is a family and has no weights. Train one with 'svitkit train {text}'.")
    if path.exists() or len(path.parts) > 1:
        raise ConfigError(f"'{text}' is no checkpoint directory. For a weight file name its class: module:callable.")
    raise unknown_name("model", text, ZOO)


def _resolve_user_class(
    text: str, weights: Path | None, dataset: Dataset, timesteps: int, arguments: dict[str, Any]
) -> Checkpoint:
    trust(text)
    spec = ModelSpec(
        family=text,
        arguments=arguments,
        timesteps=timesteps,
        input_shape=dataset.shape,
        static_input=dataset.static,
        normalization=dataset.normalization,
        class_names=dataset.class_names,
        original_parameter_bytes=0,
        provenance={"weights": weights.name} if weights else {},
    )
    model = build_user_class(text, arguments).eval()
    neuron_layers(model)
    if weights is not None:
        load_strictly(model, read_weights(weights), str(weights))
    check_output(model, spec)
    size = parameter_bytes(model, example_input(spec))
    return Checkpoint(model=model, spec=replace(spec, original_parameter_bytes=size))


def check_output(model: nn.Module, spec: ModelSpec) -> None:
    """Checks on zeros that a network takes the input and gives one logit a class.

    Raises:
        ConfigError: it does not.
    """
    x = example_input(spec)
    try:
        with torch.no_grad():
            logits = forward_logits(model, x)
    except SvitError:
        raise
    except Exception as error:  # a user's network may raise anything
        raise ConfigError(
            f"'{spec.family}' cannot run on input of shape (T, B, C, H, W) = {tuple(x.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if logits.shape[1] != len(spec.class_names):
        raise ConfigError(
            f"'{spec.family}' has {logits.shape[1]} logits, but the data {len(spec.class_names)} classes."
        )
