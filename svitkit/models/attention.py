"""Attention of spikingjelly in which widths are read from the tensors, so that channels can be removed.

``QKAttention`` and ``SpikeDrivenSelfAttention`` reshape their inner channels to the width of the token stream, and
``SpikingSelfAttention`` takes equal thirds for q, k and v. The classes here compute the same and have the same
parameters, but the width inside is whatever the projections have, independent of the stream's.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based.layer.attention import (
    ChannelQKAttention,
    QKAttention,
    SpikeDrivenSelfAttention,
    TokenQKAttention,
)
from torch import nn


class FreeQKAttention(QKAttention):  # type: ignore[misc]  # spikingjelly has no types
    """Q-K attention: a mask of tokens (or channels), made from q, on k.

    Source: Zhou et al., "QKFormer", NeurIPS 2024, equations 4 to 8.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the attention.

        Args:
            x: (T, B, C, N) float32, the token stream.

        Returns:
            (T, B, C, N) float32 of 0 and 1.
        """
        spikes = self.qk_lif(self.qk_conv_bn(x))
        inner = spikes.shape[2] // 2
        heads = spikes.unflatten(2, (2, self.num_heads, inner // self.num_heads))
        masked = self._qka_forward_torch(heads).flatten(2, 3)
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


FREE: dict[type[nn.Module], type[nn.Module]] = {
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
