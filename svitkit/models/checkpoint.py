"""Checkpoint directories: ``model.safetensors`` and ``svit.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from svitkit.errors import ConfigError
from svitkit.files import staged_directory
from svitkit.manifest import from_json, to_json
from svitkit.models.families import build_family
from svitkit.models.membranes import quantize_membranes
from svitkit.models.plan import apply_plan
from svitkit.models.quantized import (
    QuantizedWeight,
    check_quantized,
    quantize_input,
    read_quantized,
    stored_tensors,
)
from svitkit.models.run import example_input
from svitkit.models.size import layer_parameters, parameter_bytes
from svitkit.models.sparse_layers import expand_layers, sparse_tensors
from svitkit.models.spec import ModelSpec
from svitkit.models.tokens import reduce_tokens
from svitkit.models.user_class import build_user_class, is_user_class
from svitkit.models.weights import StorageType, dump_weights, load_strictly, read_safetensors

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
        """Returns the bytes of the parameters as deployed: integers at their width, sparse layers without zeros."""
        spec = self.spec
        return parameter_bytes(self.model, example_input(spec), spec.quantization, sparse=bool(spec.sparse))

    def parameter_count(self) -> int:
        """Returns the number of weights and biases as deployed, whatever their width; zeros of sparse layers not."""
        every = sum(layer_parameters(self.model, example_input(self.spec)).values())
        weights = [self.model.get_parameter(f"{layer}.weight") for layer in self.spec.sparse]
        return every - sum(weight.numel() - int(weight.count_nonzero()) for weight in weights)


def build_model(spec: ModelSpec) -> nn.Module:
    """Builds a checkpoint's network with fresh weights: the original, less its plan's channels, with fewer tokens.

    If the description quantizes input and membranes, the network rounds them. The random state of the caller does not
    change.

    Raises:
        ConfigError: family, arguments, plan, tokens or membranes are wrong.
    """
    with torch.random.fork_rng(devices=[]):
        if is_user_class(spec.family):
            model = build_user_class(spec.family, spec.arguments)
        else:
            model = build_family(spec.family, spec.arguments)
    if spec.plan is not None:
        apply_plan(model, spec.plan)
    reduce_tokens(model, spec.tokens)
    quantize_input(model, spec.quantization)
    quantize_membranes(model, spec.quantization)
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
        ConfigError: a weight is not finite, is not its integers times its scale, a sparse layer does not exist, or
            ``path`` is something else than a checkpoint.
    """
    check_target(path)
    check_quantized(model, spec.quantization, quantized or {})
    instead: dict[str, torch.Tensor] = {}
    for layer, weight in (quantized or {}).items():
        instead |= stored_tensors(layer, weight)
    for layer in spec.sparse:
        instead |= sparse_tensors(model, layer, dtype, (quantized or {}).get(layer))
    weights = dump_weights(model, dtype, instead=instead)
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
    expand_layers(tensors, spec, model, source)
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
