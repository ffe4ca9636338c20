"""The authors' networks, written from their equations with plain tensor functions, on state dicts with their names.

Equations: Spikformer (Zhou et al., ICLR 2023) 5-12; Spike-driven Transformer (Yao et al., NeurIPS 2023) 3-10; QKFormer
(Zhou et al., NeurIPS 2024) 5-13. Neurons: h = v + (x - v) / 2, s = h >= threshold, v = 0 where s else h.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def lif(x: Tensor, threshold: float = 1.0) -> Tensor:
    """Neurons at rest are given (T, ...) currents and fire (T, ...) spikes."""
    v, spikes = torch.zeros_like(x[0]), []
    for current in x:
        h = v + (current - v) / 2
        fired = h >= threshold
        v = torch.where(fired, torch.zeros_like(h), h)
        spikes.append(fired.to(x.dtype))
    return torch.stack(spikes)


def pool(x: Tensor) -> Tensor:
    """Max pooling over 3x3 in steps of 2, (T, B, C, H, W)."""
    return functional.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2])


def heads(x: Tensor, count: int) -> Tensor:
    """(T, B, C, N) to (T, B, heads, N, C / heads)."""
    return x.unflatten(2, (count, -1)).mT


def joined(x: Tensor) -> Tensor:
    """(T, B, heads, N, D) to (T, B, heads * D, N)."""
    return x.mT.flatten(2, 3)


@dataclass
class Reference:
    """Computes with a state dict; where ``fresh``, every batch norm is first fitted to what it is given.

    Attributes:
        state: float64 tensors by the authors' names.
        fresh: makes batch norms whose neurons fire.
        shifts: what batch norms get on top of their bias, by regular expressions of their names.
        rates: spikes per neuron and step by the name of the batch norm or of the layer.
    """

    state: State
    fresh: bool = False
    shifts: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def fire(self, name: str, x: Tensor, threshold: float = 1.0) -> Tensor:
        spikes = lif(x, threshold)
        self.rates[name] = float(spikes.mean())
        return spikes

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Batch norm of (T, B, C, ...) with running statistics."""
        if self.fresh:
            self._fit(name, x.transpose(0, 2).flatten(1))
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"].view(-1, *[1] * (x.ndim - 3))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def _fit(self, name: str, values: Tensor) -> None:
        noise = torch.rand(4, len(values), dtype=values.dtype)
        self.state[f"{name}.running_mean"] = values.mean(1) + 0.2 * (noise[0] - 0.5)
        self.state[f"{name}.running_var"] = (values.var(1) + 0.01) * (0.8 + 0.4 * noise[1])
        self.state[f"{name}.weight"] = 0.8 + noise[2]
        shift = sum(value for pattern, value in self.shifts.items() if re.search(pattern, name))
        self.state[f"{name}.bias"] = 0.3 + 0.8 * noise[3] + shift
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """Convolution of (T, B, C, H, W)."""
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        y = functional.conv2d(x.flatten(0, 1), weight, bias, stride, weight.shape[-1] // 2)
        return y.unflatten(0, x.shape[:2])

    def mix(self, name: str, x: Tensor) -> Tensor:
        """A layer over the channels of (T, B, C, N)."""
        y = torch.einsum("oc,tbcn->tbon", self.state[f"{name}.weight"].flatten(1), x)
        bias = self.state.get(f"{name}.bias")
        return y if bias is None else y + bias[:, None]

    def stage(self, conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        """Convolution, batch norm, neurons."""
        return self.fire(norm, self.norm(norm, self.conv(conv, x, stride)))

    def tokens(self, conv: str, norm: str, x: Tensor) -> Tensor:
        """Layer over channels, batch norm, neurons."""
        return self.fire(norm, self.norm(norm, self.mix(conv, x)))

    def head(self, x: Tensor) -> Tensor:
        """Logits of (T, B, C), the mean over time."""
        return (x @ self.state["head.weight"].mT + self.state["head.bias"]).mean(0)


def spikformer(net: Reference, x: Tensor, *, count: int, scale: float, kind: str, pools: str) -> Tensor:
    """Logits (B, classes) of a Spikformer; ``pools`` says which of the four stages pool their spikes."""
    for n, pooled in zip(("", "1", "2", "3"), pools, strict=True):
        x = net.stage(f"patch_embed.proj_conv{n}", f"patch_embed.proj_bn{n}", x)
        x = pool(x) if pooled == "1" else x
    x = (x + net.stage("patch_embed.rpe_conv", "patch_embed.rpe_bn", x)).flatten(3)
    for i in range(depth(net.state, "block")):
        attn, mlp = f"block.{i}.attn", f"block.{i}.mlp"
        x = x + self_attention(net, attn, x, count=count, scale=scale, kind=kind)
        hidden = net.tokens(f"{mlp}.fc1_{kind}", f"{mlp}.fc1_bn", x)
        x = x + net.tokens(f"{mlp}.fc2_{kind}", f"{mlp}.fc2_bn", hidden)
    return net.head(x.mean(-1))


def self_attention(
    net: Reference, attn: str, x: Tensor, *, count: int, scale: float, kind: str = "conv", over_batch: bool = False
) -> Tensor:
    """Spiking self-attention; ``over_batch``: its last neurons integrate over the batch, as in QKFormer's code."""
    q, k, v = (heads(net.tokens(f"{attn}.{part}_{kind}", f"{attn}.{part}_bn", x), count) for part in "qkv")
    y = net.fire(f"{attn}.attn", joined((q @ k.mT) @ v * scale), 0.5)
    current = net.norm(f"{attn}.proj_bn", net.mix(f"{attn}.proj_{kind}", y))
    if over_batch:
        return lif(current.flatten(0, 1)).unflatten(0, current.shape[:2])
    return net.fire(f"{attn}.proj_bn", current)


def spike_driven_transformer(net: Reference, x: Tensor, *, count: int, pooling_stat: str) -> Tensor:
    """Logits (B, classes) of a Spike-driven Transformer, whose shortcuts carry membrane potentials."""
    for n, pooled in zip(("", "1", "2"), pooling_stat, strict=False):
        x = net.stage(f"patch_embed.proj_conv{n}", f"patch_embed.proj_bn{n}", x)
        x = pool(x) if pooled == "1" else x
    u = net.norm("patch_embed.proj_bn3", net.conv("patch_embed.proj_conv3", x))
    u = pool(u) if pooling_stat[3] == "1" else u
    u = u + net.norm("patch_embed.rpe_bn", net.conv("patch_embed.rpe_conv", net.fire("patch_embed.lif3", u)))
    u = u.flatten(3)
    for i in range(depth(net.state, "block")):
        attn, mlp = f"block.{i}.attn", f"block.{i}.mlp"
        s = net.fire(f"{attn}.shortcut", u)
        q, k, v = (heads(net.tokens(f"{attn}.{part}_conv", f"{attn}.{part}_bn", s), count) for part in "qkv")
        mask = net.fire(f"{attn}.mask", (k * v).sum(-2, keepdim=True), 0.5)
        u = u + net.norm(f"{attn}.proj_bn", net.mix(f"{attn}.proj_conv", joined(q * mask)))
        hidden = net.norm(f"{mlp}.fc1_bn", net.mix(f"{mlp}.fc1_conv", net.fire(f"{mlp}.fc1", u)))
        u = u + net.norm(f"{mlp}.fc2_bn", net.mix(f"{mlp}.fc2_conv", net.fire(f"{mlp}.fc2", hidden)))
    return net.head(net.fire("head", u.mean(-1)))


def qkformer(net: Reference, x: Tensor, *, count: int, cifar: bool, over_batch: bool = False) -> Tensor:
    """Logits (B, classes) of a QKFormer with embeddings for images of CIFAR's or of ImageNet's size."""
    mlp, last = ("mlp", "ssa") if cifar else ("fc", "attn")
    for stage in (1, 2, 3):
        x = (_embed_small if cifar else _embed_large)(net, f"patch_embed{stage}", x, first=stage == 1)
        shape, x = x.shape, x.flatten(3)
        for i in range(depth(net.state, f"stage{stage}")):
            block = f"stage{stage}.{i}"
            if stage == 3:
                x = x + self_attention(net, f"{block}.{last}", x, count=count, scale=0.125, over_batch=over_batch)
            else:
                x = x + _token_attention(net, f"{block}.tssa", x, count)
            hidden = net.tokens(f"{block}.mlp.{mlp}1_conv", f"{block}.mlp.{mlp}1_bn", x)
            x = x + net.tokens(f"{block}.mlp.{mlp}2_conv", f"{block}.mlp.{mlp}2_bn", hidden)
        x = x.reshape(shape)
    return net.head(x.flatten(3).mean(-1))


def _token_attention(net: Reference, attn: str, x: Tensor, count: int) -> Tensor:
    q, k = (heads(net.tokens(f"{attn}.{part}_conv", f"{attn}.{part}_bn", x), count) for part in "qk")
    mask = net.fire(f"{attn}.mask", q.sum(-1, keepdim=True), 0.5)
    return net.tokens(f"{attn}.proj_conv", f"{attn}.proj_bn", joined(mask * k))


def _embed_large(net: Reference, embed: str, x: Tensor, *, first: bool) -> Tensor:
    def pooled(name: str, x: Tensor) -> Tensor:
        return net.fire(name, pool(net.norm(f"{embed}.{name}_bn", net.conv(f"{embed}.{name}_conv", x))))

    if first:
        x = pooled("proj", x)
        y = net.stage(f"{embed}.proj2_conv", f"{embed}.proj2_bn", pooled("proj1", x))
    else:
        y = net.stage(f"{embed}.proj4_conv", f"{embed}.proj4_bn", pooled("proj3", x))
    return y + net.stage(f"{embed}.proj_res_conv", f"{embed}.proj_res_bn", x, stride=2)


def _embed_small(net: Reference, embed: str, x: Tensor, *, first: bool) -> Tensor:
    if first:
        x = net.stage(f"{embed}.proj_conv", f"{embed}.proj_bn", x)
        y = net.stage(f"{embed}.proj1_conv", f"{embed}.proj1_bn", x)
        return y + net.stage(f"{embed}.proj_res_conv", f"{embed}.proj_res_bn", x)
    y = net.stage(f"{embed}.proj3_conv", f"{embed}.proj3_bn", x)
    y = net.fire(f"{embed}.proj4", pool(net.norm(f"{embed}.proj4_bn", net.conv(f"{embed}.proj4_conv", y))))
    return y + net.stage(f"{embed}.proj_res_conv", f"{embed}.proj_res_bn", x, stride=2)


def depth(state: State, blocks: str) -> int:
    """Number of blocks in a list of blocks."""
    return len({name.split(".")[1] for name in state if name.startswith(f"{blocks}.")})


Forward = Callable[[Reference, Tensor], Tensor]
