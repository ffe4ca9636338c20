"""Every way to name a network: zoo, checkpoint directory, a user's class, or a family with weights of its authors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError, SvitError, unknown_name
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from svitkit.models.families import FAMILIES
from svitkit.models.neurons import neuron_layers
from svitkit.models.official import read_official
from svitkit.models.run import example_input, forward_logits
from svitkit.models.size import parameter_bytes
from svitkit.models.spec import ModelSpec
from svitkit.models.user_class import build_user_class, is_user_class, trust
from svitkit.models.weights import load_strictly, read_weights
from svitkit.zoo import ZOO

DEFAULT_TIMESTEPS = 4


def resolve_model(
    text: str,
    *,
    weights: Path | None = None,
    dataset: Dataset | None = None,
    timesteps: int | None = None,
    arguments: dict[str, Any] | None = None,
) -> Checkpoint:
    """Finds the network that a name stands for.

    Args:
        text: a name of the zoo, a checkpoint directory, ``module:callable``, or with weights of its authors a family.
        weights: state dict for ``module:callable`` (without it the callable's own weights count) or a family.
        dataset: for ``module:callable`` and families, tells shape, kind and normalization of the input and the classes.
        timesteps: for ``module:callable`` (4 if None) and families, T.
        arguments: for ``module:callable`` the keyword arguments of the call, for families what their weights do not
            tell.

    Raises:
        ConfigError: nothing has that name, or what has it cannot be used.
        UnsupportedError: the network contains neurons that svitkit cannot express.
    """
    if is_user_class(text) or (text in FAMILIES and weights is not None):
        if dataset is None:
            raise ConfigError(f"'{text}' needs data: they tell the shape of its input and its classes.")
        if weights is not None and text in FAMILIES:
            return _resolve_official(text, weights, dataset, timesteps, arguments or {})
        return _resolve_user_class(text, weights, dataset, timesteps or DEFAULT_TIMESTEPS, arguments or {})
    if weights is not None or arguments:
        raise ConfigError(f"weights and arguments go with 'module:callable' or a family, but '{text}' brings its own.")
    if text in ZOO:
        return load_checkpoint(ZOO[text])
    path = Path(text)
    if path.is_dir():
        return load_checkpoint(path)
    if text in FAMILIES:
        raise ConfigError(
            f"'{text}' is a family and has no weights. Train one with 'svitkit train {text}', or give its authors' "
            f"with --weights FILE."
        )
    if path.exists() or len(path.parts) > 1:
        raise ConfigError(f"'{text}' is no checkpoint directory. For a weight file name its class: module:callable.")
    raise unknown_name("model", text, ZOO)


def _resolve_user_class(
    text: str, weights: Path | None, dataset: Dataset, timesteps: int, arguments: dict[str, Any]
) -> Checkpoint:
    trust(text)
    model = build_user_class(text, arguments).eval()
    neuron_layers(model)
    if weights is not None:
        load_strictly(model, read_weights(weights), str(weights))
    provenance = {"weights": weights.name} if weights else {}
    return _described(model, text, arguments, dataset, timesteps, provenance)


def _resolve_official(
    family: str, weights: Path, dataset: Dataset, timesteps: int | None, arguments: dict[str, Any]
) -> Checkpoint:
    found = read_official(family, weights, dataset=dataset, timesteps=timesteps, arguments=arguments)
    seen = replace(dataset, normalization=found.normalization)
    provenance = {"weights": weights.name, "authors_class": found.layout}
    return _described(found.model, family, found.arguments, seen, found.arguments["T"], provenance)


def _described(
    model: nn.Module,
    family: str,
    arguments: dict[str, Any],
    dataset: Dataset,
    timesteps: int,
    provenance: dict[str, Any],
) -> Checkpoint:
    spec = ModelSpec(
        family=family,
        arguments=arguments,
        timesteps=timesteps,
        input_shape=dataset.shape,
        static_input=dataset.static,
        normalization=dataset.normalization,
        class_names=dataset.class_names,
        original_parameter_bytes=0,
        provenance=provenance,
    )
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
