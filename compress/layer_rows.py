"""What goes into a layer and what comes out of it, as rows of a matrix: the data of every closed-form method.

One row is one position of one image at one time step. A convolution's row of inputs is the patch under its kernel, in
the order of its weights (channel, then kernel), so that ``rows_out = rows_in @ weight.flatten(1).T + bias``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from svitkit.models.fused_lif import fused_neurons
from svitkit.models.run import forward_logits
from svitkit.models.size import trace_calls

ROWS = 8192
"""Of a layer's inputs over the calibration images: a sample of positions, time steps and images."""
Take = Callable[[int], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A convolution or linear layer.

    Attributes:
        name: its qualified name.
        norm: the batch norm that normalizes its output; None if there is none.
    """

    name: str
    norm: str | None


def linear_layers(model: nn.Module, x: torch.Tensor) -> tuple[LinearLayer, ...]:
    """Lists the convolutions and linear layers that a forward pass reaches, in the order of execution.

    Grouped and depthwise convolutions, and layers that run more than once, are left out.

    Args:
        model: the network.
        x: (T, B, C, H, W) float32, any input of the right shape.
    """
    made_by: dict[int, str] = {}
    norms: dict[str, str | None] = {}
    repeated: set[str] = set()
    for name, module, given, got in trace_calls(model, x):
        if isinstance(module, _BatchNorm):
            maker = made_by.get(given.untyped_storage().data_ptr())
            if maker is not None:
                norms[maker] = name
        elif getattr(module, "groups", 1) == 1:
            if name in norms:
                repeated.add(name)
            norms[name] = None
            made_by[got.untyped_storage().data_ptr()] = name
    return tuple(LinearLayer(name=name, norm=norm) for name, norm in norms.items() if name not in repeated)


def input_rows(layer: nn.Module, x: torch.Tensor, take: Take) -> torch.Tensor:
    """Returns chosen rows of a layer's input.

    Args:
        layer: a convolution over one or two axes, not grouped, or a linear layer.
        x: its input, (..., C, H, W), (..., C, N) or (..., features).
        take: returns the indices of the chosen rows, given how many there are.

    Returns:
        (rows, features) float32.
    """
    if isinstance(layer, _ConvNd):
        spatial = len(layer.kernel_size)
        x = x.reshape(-1, *x.shape[-spatial - 1 :])
        if spatial == 1:
            x = x.unsqueeze(2)
        return _patches(layer, x, take)
    x = x.reshape(-1, x.shape[-1])
    return x[take(len(x))]


def _patches(layer: _ConvNd, x: torch.Tensor, take: Take) -> torch.Tensor:
    """Gathers patches of (B, C, H, W) without unfolding all of them."""
    kernel, stride, dilation, padding = ((1, *v)[-2:] if len(v) == 1 else v for v in _geometry(layer))
    padding = (0, padding[1]) if len(layer.kernel_size) == 1 else padding
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height, width = ((size - r) // s + 1 for size, r, s in zip(x.shape[2:], reach, stride, strict=True))
    chosen = take(len(x) * height * width)
    image, at = chosen // (height * width), chosen % (height * width)
    row, column = at // width * stride[0], at % width * stride[1]
    parts = [
        x[image, :, row + i * dilation[0], column + j * dilation[1]] for i in range(kernel[0]) for j in range(kernel[1])
    ]
    return torch.stack(parts, dim=-1).flatten(1)


def _geometry(layer: _ConvNd) -> Sequence[tuple[int, ...]]:
    padding = layer.padding
    assert isinstance(padding, tuple)
    return layer.kernel_size, layer.stride, layer.dilation, padding


def output_rows(layer: nn.Module, y: torch.Tensor, take: Take) -> torch.Tensor:
    """Returns the same rows of a layer's output as :func:`input_rows` does of its input.

    Returns:
        (rows, channels) float32.
    """
    if isinstance(layer, _ConvNd):
        spatial = len(layer.kernel_size)
        y = y.reshape(-1, *y.shape[-spatial - 1 :]).flatten(2).transpose(1, 2)
    y = y.reshape(-1, y.shape[-1])
    return y[take(len(y))]


def chooser(layer: str, rows: int) -> Take:
    """Returns a choice of at most ``rows`` rows that is the same whenever the layer is."""

    def take(count: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(layer.encode()))
        return torch.randperm(count, generator=generator)[:rows]

    return take


@contextmanager
def hooked(handles: Iterable[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Removes hooks at the end."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()


def run_once(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Runs a network for its hooks, without gradients; returns its logits."""
    with torch.no_grad(), fused_neurons(model):
        return forward_logits(model, inputs)
