"""What a checkpoint says about its network beside the weights: ``svit.json``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import STRICT, Normalization
from svitkit.models.plan import PrunePlan


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSpec:
    """Everything that is needed to build a network again and to feed it.

    Attributes:
        format_version: version of this file format.
        family: a name of ``svitkit.models.families.FAMILIES`` or the user's ``module:callable``.
        arguments: keyword arguments of the family or of the callable.
        timesteps: T of one inference.
        input_shape: (C, H, W) of one frame.
        static_input: whether one image is shown at every time step.
        normalization: how bytes or event counts become the network's input.
        class_names: one name per logit.
        plan: the channels that are kept; None if nothing was removed.
        quantization: reserved for quantized weights; None means float32.
        original_parameter_bytes: bytes of the deployed float32 parameters before anything was removed.
        provenance: how the weights came to be (commands, seeds, accuracies), for people.
    """

    format_version: Literal[1] = 1
    family: str
    arguments: dict[str, Any]
    timesteps: int = Field(ge=1)
    input_shape: tuple[int, int, int]
    static_input: bool
    normalization: Normalization
    class_names: tuple[str, ...]
    plan: PrunePlan | None = None
    quantization: None = None
    original_parameter_bytes: int = Field(ge=0)
    provenance: dict[str, Any] = Field(default_factory=dict)


def match_dataset(dataset: Dataset, spec: ModelSpec) -> Dataset:
    """Returns the dataset as this network wants to see it: with the normalization it was trained with.

    Raises:
        ConfigError: frames, kind of input or number of classes are not the network's.
    """
    if dataset.shape != spec.input_shape:
        raise ConfigError(
            f"data '{dataset.name}' has frames of shape {dataset.shape}, but the network wants {spec.input_shape} "
            f"(channels, height, width). Evaluate it on data like those it was trained on."
        )
    if dataset.static != spec.static_input:
        kinds = {True: "static images", False: "event recordings"}
        raise ConfigError(
            f"data '{dataset.name}' holds {kinds[dataset.static]}, but the network was made for "
            f"{kinds[spec.static_input]}."
        )
    if len(dataset.class_names) != len(spec.class_names):
        raise ConfigError(
            f"data '{dataset.name}' has {len(dataset.class_names)} classes, but the network {len(spec.class_names)}."
        )
    return replace(dataset, normalization=spec.normalization)
