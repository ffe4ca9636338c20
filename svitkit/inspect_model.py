"""What a network consists of, layer by layer, and what one inference costs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from svitkit.models.checkpoint import Checkpoint
from svitkit.models.neurons import neuron_layers
from svitkit.models.run import forward_logits
from svitkit.models.size import layer_parameters

MATMULS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of the table.

    Attributes:
        layer: qualified name; a matrix product of an attention has its module's name and ``@`` and its number.
        kind: class of the layer, or ``matmul``.
        output_shape: as the layer returned it for the whole batch.
        parameters: float32 parameters as deployed, batch norm folded.
        zeros: share of its weights that are 0 (0..1); of a layer that runs again, as of one without weights, 0.
        macs: multiply-accumulates of one inference over all time steps, if nothing were skipped.
        spike_rate: spikes per element and time step: of the input of a layer with weights, of the output of a layer of
            neurons, share of products that are not zero for a matmul. Above 1 where spikes are added up; None where the
            input is no spikes.
        synaptic_operations: ``macs * spike_rate``; ``macs`` where the input is no spikes; 0 for neurons.
    """

    layer: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    zeros: float
    macs: int
    spike_rate: float | None
    synaptic_operations: float


def inspect_network(checkpoint: Checkpoint, x: torch.Tensor) -> list[LayerRow]:
    """Measures every layer on real input.

    Masks that attention multiplies element by element, without a matrix product (Spike-driven Transformer, Q-K
    attention), are additions of spikes and cost no multiply-accumulate; they have no row.

    Args:
        checkpoint: the network.
        x: (T, B, C, H, W) float32, normalized input; figures are means over B.

    Returns:
        Rows in the order of execution; a layer that runs twice has two.

    Raises:
        UnsupportedError: a layer's neurons are not LIF neurons.
    """
    model = checkpoint.model.eval()
    parameters = layer_parameters(model, x[:, :1])
    recorder = _Recorder(parameters, batch=x.shape[1])
    neurons = set(neuron_layers(model))
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(recorder.entering(name)))
        if name in neurons:
            handles.append(module.register_forward_hook(recorder.neurons(name)))
        elif name in parameters:
            handles.append(module.register_forward_hook(recorder.weights(name)))
        handles.append(module.register_forward_hook(recorder.leaving()))
    try:
        with torch.no_grad(), recorder:
            forward_logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.rows


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch leaves its constructor untyped
    """Sees every matrix product, and knows from hooks which module it is in."""

    def __init__(self, parameters: dict[str, int], *, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters, self.batch = parameters, batch
        self.rows: list[LayerRow] = []
        self.inside: list[tuple[str, nn.Module]] = []

    def entering(self, name: str) -> Callable[..., None]:
        return lambda module, inputs: self.inside.append((name, module))

    def leaving(self) -> Callable[..., None]:
        return lambda module, inputs, output: self.inside.pop() and None

    def neurons(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self._add(name, type(module).__name__, output, macs=0, rate=float(output.mean()), ops=0.0)

        return hook

    def weights(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            macs = output.numel() * _macs_per_output(module) // self.batch
            rate = _spike_rate(inputs[0]) if isinstance(module, nn.Linear | _ConvNd) else None
            ops = macs * (1.0 if rate is None else rate)
            zeros = float((module.weight == 0).float().mean()) if isinstance(module, nn.Linear | _ConvNd) else 0.0
            self._add(name, type(module).__name__, output, macs=macs, rate=rate, ops=ops, zeros=zeros)

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in MATMULS and not isinstance(self.inside[-1][1], nn.Linear | _ConvNd):
            self._add_matmul(args[0], args[1], output)
        return output

    def _add_matmul(self, a: torch.Tensor, b: torch.Tensor, output: torch.Tensor) -> None:
        name, macs = self.inside[-1][0], output.numel() * a.shape[-1] / self.batch
        number = sum(row.layer.startswith(f"{name}@") for row in self.rows)
        rate = None
        if _spike_rate(a) is not None and _spike_rate(b) is not None:
            products = (a != 0).to(a.dtype) @ (b != 0).to(b.dtype)
            rate = float(products.sum()) / max(output.numel() * a.shape[-1], 1)
        self.rows.append(
            LayerRow(
                layer=f"{name}@{number}",
                kind="matmul",
                output_shape=tuple(output.shape),
                parameters=0,
                zeros=0.0,
                macs=round(macs),
                spike_rate=rate,
                synaptic_operations=macs * (1.0 if rate is None else rate),
            )
        )

    def _add(
        self,
        name: str,
        kind: str,
        output: torch.Tensor,
        *,
        macs: int,
        rate: float | None,
        ops: float,
        zeros: float = 0.0,
    ) -> None:
        first = all(row.layer != name for row in self.rows)
        self.rows.append(
            LayerRow(
                layer=name,
                kind=kind,
                output_shape=tuple(output.shape),
                parameters=self.parameters.get(name, 0) if first else 0,
                zeros=zeros if first else 0.0,
                macs=macs,
                spike_rate=rate,
                synaptic_operations=ops,
            )
        )


def _macs_per_output(module: nn.Module) -> int:
    if isinstance(module, _BatchNorm):
        return 1
    return module.weight[0].numel() if isinstance(module, nn.Linear | _ConvNd) else 0


def _spike_rate(x: torch.Tensor) -> float | None:
    """Returns the mean of counts of spikes, None if the values are no counts."""
    counts = bool(((x == x.round()) & (x >= 0)).all())
    return float(x.mean()) if counts else None
