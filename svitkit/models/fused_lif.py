"""LIF neurons that train faster on a CPU: all time steps in one autograd function.

PyTorch records about fifteen operations a time step for spikingjelly's ``LIFNode``; here it is one node that keeps
potentials and spikes alone, and computes in the input's memory format. Charging, firing and the hard reset are those of
:mod:`svitkit.lif`; the gradient is that of spikingjelly with ``detach_reset``::

    dL/dh[t] = dL/ds[t] * g(h[t] - v_threshold) + dL/dh[t+1] * (1 - 1/tau) * (1 - s[t])
    dL/dx[t] = dL/dh[t] / tau            g(u) = alpha * sigmoid(alpha u) * (1 - sigmoid(alpha u))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import frexp
from typing import Any

import torch
from spikingjelly.activation_based.neuron import LIFNode
from spikingjelly.activation_based.surrogate import Sigmoid
from torch import nn


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, tau: float, v_threshold: float, alpha: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        s = torch.empty_like(x)
        h = torch.empty_like(x if ctx.needs_input_grad[0] else x[:1]).expand_as(x)  # one step's is enough to infer
        v: torch.Tensor | None = None
        for t in range(len(x)):
            if v is None:
                torch.mul(x[t], 1 / tau, out=h[t])
            else:
                torch.sub(x[t], v, out=h[t])
                torch.add(v, h[t], alpha=1 / tau, out=h[t])
            torch.ge(h[t], v_threshold, out=s[t])
            v = torch.addcmul(h[t], h[t], s[t], value=-1)
        ctx.save_for_backward(h, s)
        ctx.constants = tau, v_threshold, alpha
        if v is not None:
            ctx.mark_non_differentiable(v)
        return s, v

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        h, s = ctx.saved_tensors
        tau, v_threshold, alpha = ctx.constants
        slope = torch.sigmoid((h - v_threshold).mul_(alpha))
        slope.addcmul_(slope, slope, value=-1).mul_(alpha)
        wanted = slope.mul_(gradients[0])
        for t in range(len(h) - 2, -1, -1):
            later = wanted[t + 1] * (1 - 1 / tau)
            wanted[t].add_(later.addcmul_(later, s[t], value=-1))
        return wanted.mul_(1 / tau), None, None, None


def can_fuse(node: nn.Module) -> bool:
    """Whether :func:`fused_neurons` has the dynamics and the gradient of this neuron."""
    return bool(
        type(node) is LIFNode
        and node.step_mode == "m"
        and node.v_reset == 0.0
        and node.decay_input
        and node.detach_reset
        and not node.store_v_seq
        and node._neuron_precision is None
        and isinstance(node.surrogate_function, Sigmoid)
        and node.surrogate_function.spiking
        and not any(callable(value) and hasattr(LIFNode, name) for name, value in vars(node).items())
    )


@contextmanager
def fused_neurons(model: nn.Module, *, exact: bool = False) -> Iterator[None]:
    """Lets a network's neurons compute in one function each; neurons that it does not know stay as they are.

    The spikes are those of ``LIFNode``, to the bit where ``tau`` is a power of two. So are the membrane potentials that
    stay behind; a layer that is called again before it is reset goes on from them as ``LIFNode`` does, but no gradient
    reaches back through them.

    Args:
        model: the network; after the context its neurons are spikingjelly's again.
        exact: leave neurons alone whose spikes could differ in a bit.
    """
    nodes = [module for module in model.modules() if can_fuse(module)]
    if exact:  # tau is a power of two
        nodes = [node for node in nodes if isinstance(node, LIFNode) and frexp(node.tau)[0] == 0.5]
    for node in nodes:
        node.forward = partial(_forward, node)
    try:
        yield
    finally:
        for node in nodes:
            del node.forward


def _forward(node: LIFNode, x: torch.Tensor) -> torch.Tensor:
    if isinstance(node.v, torch.Tensor):  # not reset since the last call
        continued: torch.Tensor = LIFNode.forward(node, x)
        return continued
    spikes: torch.Tensor
    spikes, node.v = _LIF.apply(  # type: ignore[no-untyped-call]
        x, node.tau, node.v_threshold, node.surrogate_function.alpha
    )
    return spikes
