"""The families of Spiking Vision Transformers, on spikingjelly's classes.

Every network takes ``(T, B, C, H, W) float32`` and returns logits ``(B, classes)`` or ``(T, B, classes)``. All neurons
are multi-step LIF neurons whose reset is detached from the gradient, as in the authors' training code.

Sources: Zhou et al., "Spikformer", ICLR 2023; Yao et al., "Spike-driven Transformer", NeurIPS 2023; Zhou et al.,
"QKFormer", NeurIPS 2024.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from svitkit.errors import ConfigError, unknown_name
from svitkit.manifest import STRICT

MAX_PARAMETERS = 1 << 28
"""Of a network that is built, about: as float32 1 GiB, which is also the most that is read of an ONNX file."""
Depth = Annotated[int, Field(le=256)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FamilyArguments:
    """What every family is told.

    Attributes:
        T: time steps over which a single image is repeated by spikingjelly's classes.
        in_channels: channels of a frame.
        img_size_h, img_size_w: height and width of a frame in pixels.
        num_classes: number of logits.
        embed_dims: channels of the token stream (of the last stage in QKFormer).
        mlp_ratio: hidden channels of an MLP per channel of the token stream.
    """

    T: int = Field(default=4, ge=1, le=4096)
    in_channels: int = Field(default=3, ge=1, le=4096)
    img_size_h: int = Field(ge=1, le=16384)
    img_size_w: int = Field(ge=1, le=16384)
    num_classes: int = Field(ge=2, le=1 << 20)
    embed_dims: int = Field(ge=8, le=16384)
    mlp_ratio: float = Field(default=4.0, gt=0, le=256)

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds the network with fresh weights.

        Raises:
            ConfigError: the arguments contradict each other.
        """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpikformerArguments(FamilyArguments):
    """Spikformer: four convolutions, then blocks of spiking self-attention.

    Attributes:
        patch_size: pixels per token and axis.
        num_heads: attention heads.
        depths: number of blocks.
        pool_after_lif: whether the stem pools the spikes of its neurons, as the authors' networks do, or their input,
            as spikingjelly's class does.
        attention_scale: factor of the attention; the authors' network for event recordings has 0.25.
    """

    patch_size: Literal[4, 16] = 4
    num_heads: int = Field(default=8, ge=1)
    depths: Depth = Field(default=2, ge=1)
    pool_after_lif: bool = False
    attention_scale: float = Field(default=0.125, gt=0)

    def build(self) -> nn.Module:
        """Builds spikingjelly's ``Spikformer``."""
        from spikingjelly.activation_based.layer.attention import SpikingSelfAttention
        from spikingjelly.activation_based.model.spikformer import Spikformer

        from svitkit.models.stems import pool_after_neurons

        _require_multiple("embed_dims", self.embed_dims, 8, "the stem's widths are 1/8, 1/4 and 1/2 of it")
        _require_multiple("embed_dims", self.embed_dims, self.num_heads, "every head takes an equal share")
        _require_hidden(self.embed_dims, self.mlp_ratio)
        _require_pixels(self.img_size_h, self.img_size_w, self.patch_size)
        model: nn.Module = Spikformer(
            T=self.T,
            in_channels=self.in_channels,
            img_size_h=self.img_size_h,
            img_size_w=self.img_size_w,
            patch_size=self.patch_size,
            num_classes=self.num_classes,
            embed_dims=self.embed_dims,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            depths=self.depths,
        )
        if self.pool_after_lif:
            pool_after_neurons(model.patch_embed)
        for module in model.modules():
            if isinstance(module, SpikingSelfAttention):
                module.scale = self.attention_scale
        return model


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpikeDrivenTransformerArguments(FamilyArguments):
    """Spike-driven Transformer: membrane shortcuts, attention by masks.

    Attributes:
        num_heads: attention heads.
        depths: number of blocks.
        pooling_stat: which of the four stem convolutions halve the frame, as four digits 0 or 1.
    """

    num_heads: int = Field(default=8, ge=1)
    depths: Depth = Field(default=2, ge=1)
    pooling_stat: str = Field(default="0011", pattern="^[01]{4}$", coerce_numbers_to_str=True)

    def build(self) -> nn.Module:
        """Builds spikingjelly's ``SpikeDrivenTransformer``."""
        from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer

        _require_multiple("embed_dims", self.embed_dims, 8, "the stem's widths are 1/8, 1/4 and 1/2 of it")
        _require_multiple("embed_dims", self.embed_dims, self.num_heads, "every head takes an equal share")
        _require_hidden(self.embed_dims, self.mlp_ratio)
        _require_pixels(self.img_size_h, self.img_size_w, 2 ** self.pooling_stat.count("1"))
        model: nn.Module = SpikeDrivenTransformer(
            T=self.T,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            embed_dims=self.embed_dims,
            num_heads=self.num_heads,
            depths=self.depths,
            mlp_ratio=self.mlp_ratio,
            pooling_stat=self.pooling_stat,
            detach_reset=True,
        )
        return model


def _for_every_stage(value: object) -> object:
    return (value,) * 3 if isinstance(value, int) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QKFormerArguments(FamilyArguments):
    """QKFormer: three stages of growing width, Q-K attention in the first two.

    Attributes:
        num_heads: attention heads of the three stages; one number means it for all of them.
        depths: blocks of the three stages.
        qka_type: whether the mask of the Q-K attention selects tokens or channels.
        patch_size: pixels per token and axis in the last stage: 16, or 4 for small images, whose first stage has a
            token for every pixel (the authors' networks for CIFAR).
    """

    num_heads: Annotated[tuple[int, int, int], BeforeValidator(_for_every_stage)] = (2, 4, 8)
    depths: tuple[Depth, Depth, Depth] = (1, 1, 2)
    qka_type: Literal["token", "channel"] = "token"
    patch_size: Literal[4, 16] = 16

    def build(self) -> nn.Module:
        """Builds spikingjelly's ``QKFormer``, for small images with embeddings of its own."""
        from spikingjelly.activation_based.model.qkformer import QKFormer

        from svitkit.models.stems import FullSizeEmbedding, HalvingEmbedding

        _require_multiple("embed_dims", self.embed_dims, 8, "the stages have 1/4, 1/2 and 1 of it, the stem 1/8")
        if min(self.num_heads) < 1 or min(self.depths) < 0:
            raise ConfigError(
                f"num_heads must be positive, got {self.num_heads}; depths not negative, got {self.depths}."
            )
        widths = (self.embed_dims // 4, self.embed_dims // 2, self.embed_dims)
        for width, heads in zip(widths, self.num_heads, strict=True):
            _require_multiple("the width of a stage", width, heads, "every head takes an equal share")
            _require_hidden(width, self.mlp_ratio)
        _require_pixels(self.img_size_h, self.img_size_w, self.patch_size)
        model: nn.Module = QKFormer(
            T=self.T,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            embed_dims=self.embed_dims,
            num_heads=self.num_heads,
            depths=self.depths,
            mlp_ratio=self.mlp_ratio,
            qka_type=self.qka_type,
            detach_reset=True,
        )
        if self.patch_size == 4:
            model.patch_embed1 = FullSizeEmbedding(self.in_channels, widths[0])
            model.patch_embed2 = HalvingEmbedding(widths[0], widths[1])
            model.patch_embed3 = HalvingEmbedding(widths[1], widths[2])
        return model


FAMILIES: dict[str, type[FamilyArguments]] = {
    "spikformer": SpikformerArguments,
    "spike-driven-transformer": SpikeDrivenTransformerArguments,
    "qkformer": QKFormerArguments,
}


def build_family(family: str, arguments: dict[str, Any]) -> nn.Module:
    """Builds a network of a family with fresh weights, in training mode.

    Args:
        family: a name of ``FAMILIES``.
        arguments: the fields of that family's argument class.

    Raises:
        ConfigError: the family or an argument is unknown, or the arguments contradict each other.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    try:
        checked = TypeAdapter(FAMILIES[family]).validate_python(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{family}: argument '{where}': {first['msg']}, got {str(first['input'])[:80]!r}.") from None
    _require_memory(checked)
    return checked.build()


def _require_memory(arguments: FamilyArguments) -> None:
    """Raises ConfigError before a network of absurd size is allocated."""
    width, depths = arguments.embed_dims, getattr(arguments, "depths", 0)
    blocks = depths if isinstance(depths, int) else sum(depths)
    squares = 16 + blocks * (4 + 2 * arguments.mlp_ratio)  # weights of the stem and of the blocks
    parameters = width * (width * squares + arguments.num_classes + 9 * arguments.in_channels)
    if parameters > MAX_PARAMETERS:
        raise ConfigError(
            f"a network of embed_dims {width} and {blocks} blocks has about {parameters:.0f} parameters; at most "
            f"{MAX_PARAMETERS} are built."
        )


def _require_multiple(name: str, value: int, of: int, why: str) -> None:
    if value % of:
        raise ConfigError(f"{name} is {value}, but must be a multiple of {of}: {why}.")


def _require_hidden(width: int, mlp_ratio: float) -> None:
    if int(width * mlp_ratio) < 1:
        raise ConfigError(f"mlp_ratio {mlp_ratio} leaves no hidden channel at width {width}.")


def _require_pixels(height: int, width: int, least: int) -> None:
    if min(height, width) < least:
        raise ConfigError(
            f"images of {height}x{width} pixels are too small: this network halves them down from {least}."
        )
