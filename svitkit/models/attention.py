"""Attention of spikingjelly in which widths are read from the tensors, so that channels can be removed.

``QKAttention`` and ``SpikeDrivenSelfAttention`` reshape their inner channels to the width of the token stream, and
``SpikingSelfAttention`` takes equal thirds for q, k and v. The classes here compute the same and have the same
parameters, but the width inside is whatever the projections have, independent of the stream's, and where the
equations allow it q and k have another width than v.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from spikingjelly.activation_based.layer.attention import (
    ChannelQKAttention,
    QKAttention,
    SpikeDrivenSelfAttention,
    SpikingSelfAttention,
    TokenQKAttention,
)
from torch import nn

from svitkit.errors import ConfigError


class FreeSelfAttention(SpikingSelfAttention):  # type: ignore[misc]  # spikingjelly has no types
    """Spiking self-attention: (v k^T) q, scaled.

    Source: Zhou et al., "Spikformer", ICLR 2023, equation 6.

    Attributes:
        qk_width: outputs of the fused projection that are q's, and as many that are k's; None for a third each.
        v_width: outputs that are v's; None for a third.
    """

    qk_width: int | None = None
    v_width: int | None = None

    def separate(self) -> None:
        """Stores the width of q and k and that of v, so that they can differ."""
        if self.qk_width is None:
            self.qk_width = self.v_width = self.qkv_conv_bn[0].out_channels // 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the attention.

        Args:
            x: (T, B, C, N) float32, the token stream.

        Returns:
            (T, B, C, N) float32 of 0 and 1.
        """
        if self.qk_width is None or self.v_width is None:
            return self._thirds(x)
        q, k, v = _apart(self.qkv_lif(self.qkv_conv_bn(x)), self.qk_width, self.qk_width, self.v_width)
        q, k, v = (_heads(part, self.num_heads) for part in (q, k, v))
        mixed = self.attn_lif((v @ k.transpose(-2, -1)) @ q * self.scale).flatten(2, 3)
        out: torch.Tensor = self.proj_lif(self.proj_conv_bn(mixed))
        return out

    def _thirds(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        return out


class FreeQKAttention(QKAttention):  # type: ignore[misc]
    """Q-K attention: a mask of tokens (or channels), made from q, on k.

    A mask of channels is one for every channel, whatever the number of heads, so there are none then.

    Source: Zhou et al., "QKFormer", NeurIPS 2024, equations 4 to 8.

    Attributes:
        q_width, k_width: outputs of the fused projection that are q's, and k's; None for half of them.
    """

    q_width: int | None = None
    k_width: int | None = None

    def separate(self) -> None:
        """Stores the widths of q and of k, so that they can differ."""
        if self.q_width is None:
            self.q_width = self.k_width = self.qk_conv_bn[0].out_channels // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the attention.

        Args:
            x: (T, B, C, N) float32, the token stream.

        Returns:
            (T, B, C, N) float32 of 0 and 1.
        """
        spikes = self.qk_lif(self.qk_conv_bn(x))
        half = spikes.shape[2] // 2
        q, k = _apart(spikes, self.q_width or half, self.k_width or half)
        if self.qka_type == "token":
            mask = self.attn_lif(_heads(q, self.num_heads).sum(3, keepdim=True))
            masked = (mask * _heads(k, self.num_heads)).flatten(2, 3)
        else:
            masked = self.attn_lif(q.sum(3, keepdim=True)) * k
        out: torch.Tensor = self.proj_lif(self.proj_conv_bn(masked))
        return out


class FreeSpikeDrivenSelfAttention(SpikeDrivenSelfAttention):  # type: ignore[misc]
    """Spike-driven self-attention: q masked by the channels in which k and v meet.

    No channel meets another one, whatever the number of heads, so there are none here.

    Source: Yao et al., "Spike-driven Transformer", NeurIPS 2023, equation 8.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the attention and adds it to the stream.

        Args:
            x: (T, B, C, H, W) float32, the stream of membrane currents.

        Returns:
            (T, B, C, H, W) float32.
        """
        height, width = x.shape[-2:]
        spikes = self.shortcut_lif(x)
        q = self.q_lif(self.q_bn(self.q_conv(spikes))).flatten(3)
        k = self.k_lif(self.k_bn(self.k_conv(spikes))).flatten(3)
        v = self.v_lif(self.v_bn(self.v_conv(spikes))).flatten(3)
        masked = q * self.attn_lif((k * v).sum(-1, keepdim=True))
        out: torch.Tensor = self.proj_bn(self.proj_conv(masked.unflatten(3, (height, width)))) + x
        return out


def _apart(x: torch.Tensor, *widths: int) -> list[torch.Tensor]:
    """Takes the channels of (T, B, C, N) apart, one part after the other; together they must be all of them."""
    ends = list(accumulate(widths))
    if ends[-1] != x.shape[2]:
        raise ConfigError(f"{x.shape[2]} channels do not divide into parts of {widths}.")
    return [x[:, :, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Divides the channels of (T, B, C, N) into (T, B, heads, C / heads, N)."""
    timesteps, batch, channels, tokens = x.shape
    return x.reshape(timesteps, batch, heads, channels // heads, tokens)


FREE: dict[type[nn.Module], type[nn.Module]] = {
    SpikingSelfAttention: FreeSelfAttention,
    QKAttention: FreeQKAttention,
    TokenQKAttention: FreeQKAttention,
    ChannelQKAttention: FreeQKAttention,
    SpikeDrivenSelfAttention: FreeSpikeDrivenSelfAttention,
}


def free_widths(model: nn.Module) -> None:
    """Makes every attention of spikingjelly in a network compute with whatever width its projections have, in place.

    A class derived from one of spikingjelly's is left alone: what it computes is not known.
    """
    for module in model.modules():
        kind = FREE.get(type(module))
        if kind is not None:
            module.__class__ = kind


def separate_widths(model: nn.Module) -> None:
    """Makes every attention with a fused projection store the widths that may differ, in place."""
    for module in model.modules():
        if isinstance(module, FreeSelfAttention | FreeQKAttention):
            module.separate()
