"""What a checkpoint says about its network beside the weights: ``svit.json``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from svitkit.data.dataset import Dataset
from svitkit.errors import ConfigError
from svitkit.lif_integer import Membrane
from svitkit.manifest import STRICT, Normalization
from svitkit.models.plan import PrunePlan

TokenCriterion = Literal["difference", "activity", "grid", "random", "learned"]
FIXED_CRITERIA = ("grid", "random")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputQuantization:
    """How the normalized input becomes bytes: ``clip(round(x / scale) + zero_point, 0, 255)``.

    Attributes:
        scale: a power of two.
        zero_point: the byte that means 0.
    """

    scale: float = Field(gt=0)
    zero_point: int = Field(ge=0, le=255)

    def __post_init__(self) -> None:
        """Checks that dividing by the scale is exact.

        Raises:
            ValueError: the scale is no power of two.
        """
        if math.frexp(self.scale)[0] != 0.5:
            raise ValueError(f"the scale of the input is {self.scale}, which is no power of two")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuantizationSpec:
    """Which layers have integer weights; their integers and scales stand in the weights file.

    A layer ``name`` has there ``name.weight`` (int8; below 8 bits packed bit to bit into uint8, the lowest first) and
    ``name.weight_scale`` (one float32 per output channel).

    Attributes:
        layers: bits of a weight by the qualified name of a convolution or linear layer, in the order of execution.
        input: how the network's input is rounded for the layer that reads it.
        membranes: how potentials are kept, by the qualified name of a layer of neurons; float32 where it has no entry.
    """

    layers: dict[str, Annotated[int, Field(ge=2, le=8)]] = Field(min_length=1)
    input: InputQuantization
    membranes: dict[str, Membrane] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenReduction:
    """A block that computes some of its tokens only (:mod:`svitkit.models.tokens`).

    Attributes:
        block: qualified name of the module.
        grid: tokens of its input along height and width.
        channels: of its input.
        kept: how many tokens it computes.
        criterion: how they are chosen: ``difference`` and ``activity`` (:mod:`svitkit.models.token_ops`); ``learned``,
            by a small network on spikes; ``grid`` and ``random``, the same whatever the input.
        rest: whether the other tokens ``skip`` the block and come back behind it, or ``drop`` out.
        currents: whether its input holds currents, not spikes or counts.
        seed: of a random choice.
    """

    block: str
    grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    channels: int = Field(ge=1)
    kept: int = Field(ge=1)
    criterion: TokenCriterion
    rest: Literal["skip", "drop"]
    currents: bool
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        """Checks that there are so many tokens.

        Raises:
            ValueError: more are kept than there are.
        """
        if self.kept > self.tokens:
            raise ValueError(f"block '{self.block}' keeps {self.kept} of {self.tokens} tokens")

    @property
    def tokens(self) -> int:
        """Number of tokens of the input."""
        return self.grid[0] * self.grid[1]

    @property
    def looks(self) -> bool:
        """Whether the choice depends on the input."""
        return self.criterion not in FIXED_CRITERIA


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
        quantization: the layers with integer weights; None means that all are float32.
        tokens: the blocks that compute some of their tokens only.
        sparse: the layers whose weights are stored as bitmap and values (:mod:`svitkit.models.sparse`), by the
            qualified name of a convolution or linear layer. The weights file has there ``name.weight_bitmap`` (uint8)
            and, as ``name.weight``, the values in a row.
        original_parameter_bytes: bytes of the deployed float32 parameters before anything was removed or quantized.
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
    quantization: QuantizationSpec | None = None
    tokens: tuple[TokenReduction, ...] = ()
    sparse: tuple[str, ...] = ()
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
