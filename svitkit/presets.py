"""Recipes as data: which network is trained on which data, and how."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitOptions:
    """How weights are fitted: AdamW, a linear warm-up and a cosine down to zero.

    Attributes:
        epochs: passes over the training split.
        lr: highest learning rate.
        timesteps: T.
        single_step_epochs: so many epochs come first in which an image is shown for one time step only, at a T-th of
            the cost (as Spike-driven Transformer V2 is trained, Yao et al., ICLR 2024).
        batch_size: samples per step.
        weight_decay: of AdamW.
        warmup_epochs: passes during which the learning rate rises from zero.
        label_smoothing: share of a label given to all classes alike, 0..1.
        distillation: share of the loss that a teacher's answers have, where there is a teacher.
        max_gradient_norm: longer gradients are scaled down to it.
        shift_pixels: images are moved by up to that many pixels along each axis.
        rotate_degrees: images are turned by up to that angle to either side.
        scale_percent: images are enlarged or reduced by up to that share.
        flip: whether half of the images are mirrored left to right.
        bf16: whether the forward pass computes in bfloat16.
        seed: of the weights, the order and the augmentation.
    """

    epochs: int = Field(ge=1)
    lr: float = Field(default=1e-3, gt=0)
    timesteps: int = Field(default=4, ge=1)
    single_step_epochs: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=2)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_epochs: float = Field(default=2.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    distillation: float = Field(default=0.5, ge=0, le=1)
    max_gradient_norm: float = Field(default=5.0, gt=0)
    shift_pixels: int = Field(default=0, ge=0)
    rotate_degrees: float = Field(default=0.0, ge=0)
    scale_percent: float = Field(default=0.0, ge=0, lt=100)
    flip: bool = False
    bf16: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_full_epochs(self) -> FitOptions:
        if self.single_step_epochs >= self.epochs:
            raise ValueError(f"single_step_epochs must be less than epochs, {self.epochs}")
        return self

    def timesteps_in(self, epoch: int) -> int:
        """Returns the time steps that samples are shown for in an epoch, counted from 0."""
        return 1 if epoch < self.single_step_epochs else self.timesteps


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preset:
    """A network and its training.

    Attributes:
        family: a name of ``svitkit.models.families.FAMILIES``.
        data: kind of data that it is made for.
        arguments: what the data do not tell (channels, frame size and classes come from them).
        fit: the training.
    """

    family: str
    data: str = "digits"
    arguments: dict[str, Any] = field(default_factory=dict)
    fit: FitOptions


IMAGE_FIT = FitOptions(epochs=30, shift_pixels=2)
FASHION_FIT = FitOptions(
    epochs=10,
    single_step_epochs=8,
    lr=2e-3,
    batch_size=128,
    warmup_epochs=1,
    label_smoothing=0.05,
    flip=True,
    bf16=True,
)

PRESETS: dict[str, Preset] = {
    "digits-spikformer": Preset(
        family="spikformer",
        arguments={"patch_size": 4, "embed_dims": 96, "num_heads": 6, "depths": 2},
        fit=FitOptions(epochs=80, lr=3e-3, shift_pixels=1, rotate_degrees=10, scale_percent=8, warmup_epochs=4),
    ),
    "fashion-spikformer": Preset(
        family="spikformer", data="fashion-mnist", arguments={"embed_dims": 192}, fit=FASHION_FIT
    ),
    "fashion-sdt": Preset(
        family="spike-driven-transformer",
        data="fashion-mnist",
        arguments={"embed_dims": 192, "pooling_stat": "0110"},
        fit=FASHION_FIT,
    ),
    "fashion-qkformer": Preset(
        family="qkformer",
        data="fashion-mnist",
        arguments={"embed_dims": 192, "depths": (1, 1, 1)},
        fit=replace(FASHION_FIT, epochs=13, single_step_epochs=10),
    ),
    "nmnist-spikformer": Preset(
        family="spikformer",
        data="nmnist",
        arguments={"embed_dims": 128, "depths": 2},
        fit=FitOptions(
            epochs=50, lr=2e-3, batch_size=32, shift_pixels=3, rotate_degrees=12, scale_percent=12, bf16=True
        ),
    ),
    "spikformer": Preset(family="spikformer", arguments={"embed_dims": 192}, fit=IMAGE_FIT),
    "spike-driven-transformer": Preset(family="spike-driven-transformer", arguments={"embed_dims": 192}, fit=IMAGE_FIT),
    "qkformer": Preset(family="qkformer", arguments={"embed_dims": 192}, fit=IMAGE_FIT),
}


def find_preset(arch: str) -> Preset:
    """Returns a preset by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if arch not in PRESETS:
        raise unknown_name("architecture", arch, PRESETS)
    return PRESETS[arch]


def fit_options(arch: str, **changes: Any) -> FitOptions:
    """Returns a preset's training with changes, as :func:`change_fit` makes them.

    Args:
        arch: a name of ``PRESETS``.
        changes: attributes of :class:`FitOptions`.

    Raises:
        ConfigError: the name is unknown, or a value is out of range.
    """
    return change_fit(find_preset(arch).fit, **changes)


def change_fit(recipe: FitOptions, **changes: Any) -> FitOptions:
    """Returns a training with changes.

    With another number of epochs, those of a single time step keep their share of them, and at least one epoch is left
    with all time steps.

    Args:
        recipe: the training.
        changes: attributes of :class:`FitOptions`.

    Raises:
        ConfigError: a value is out of range.
    """
    if "epochs" in changes and "single_step_epochs" not in changes:
        share = recipe.single_step_epochs / recipe.epochs
        changes["single_step_epochs"] = min(round(share * changes["epochs"]), max(0, changes["epochs"] - 1))
    try:
        return replace(recipe, **changes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where} is {first['input']!r}: {first['msg']}." if where else f"{first['msg']}.") from None


def data_of(arch: str, given: str | None) -> str:
    """Returns the data to train a preset on, as ``svitkit.data.load.load_data`` takes them.

    Args:
        arch: a name of ``PRESETS``.
        given: what the user names; None for the kind that the preset is made for.

    Raises:
        ConfigError: the name is unknown, or nothing is given and that kind needs a path.
    """
    kind = find_preset(arch).data
    if given is None and kind != "digits":
        raise ConfigError(f"'{arch}' is made for data of kind '{kind}', which need a path: --data {kind}:PATH.")
    return given or kind
