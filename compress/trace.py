"""A network as ``torch.export`` sees it, with neurons as single opaque nodes, and the axes its parameters share."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import fx, nn

from svitkit.compress.axes import Axes, Axis, fix, new_axes
from svitkit.compress.propagate import propagate
from svitkit.compress.values import Roles, Tensor, tensors
from svitkit.errors import SvitError, UnsupportedError
from svitkit.models.neurons import neuron_layers

OUTPUT = "it reaches the network's output"


@torch.library.custom_op("svitkit_compress::neuron", mutates_args=())
def _neuron(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@_neuron.register_fake
def _neuron_shape(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class _OpaqueNeuron(nn.Module):
    """Stands in for a layer of neurons: elementwise, and one node of the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Passes (T, ...) through."""
        result: torch.Tensor = _neuron(x)
        return result


@dataclass(frozen=True, kw_only=True)
class TracedAxes:
    """The axes of a network's parameters and buffers after the whole graph was walked.

    Attributes:
        axes: axes by state-dict name; pieces that two tensors share are the same object.
        roles: the axes that produce channels and those that consume them, in the order of execution.
    """

    axes: dict[str, Axes]
    roles: Roles

    def axis(self, tensor: str, dim: int) -> Axis:
        """Returns one axis of a parameter or buffer."""
        return self.axes[tensor][dim]


def trace_axes(model: nn.Module, x: torch.Tensor) -> TracedAxes:
    """Traces a network and finds out which axes of its parameters belong together.

    Args:
        model: the network, in evaluation mode; it is not changed.
        x: (T, B, C, H, W) float32, an input of the right shape.

    Raises:
        UnsupportedError: the network contains other neurons than LIF, or its forward pass cannot be traced.
    """
    program = _export(model, x)
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    roles = Roles()
    named: dict[str, Axes] = {}
    values: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        shape = _shape(node)
        if node.op == "placeholder":
            values[node] = _placeholder(node, stored, named, shape)
        elif node.op == "output":
            for value in tensors({"results": _replace(node.args[0], values)}):
                fix([piece for axis in value.axes for piece in axis], OUTPUT)
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif node.op == "call_function" and shape is not None:
            values[node] = _call(node, values, roles, shape)
    return TracedAxes(axes=named, roles=roles)


def _export(model: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    functional.reset_net(model)
    traced = copy.deepcopy(model)
    for name in neuron_layers(traced):
        path, _, leaf = name.rpartition(".")
        setattr(traced.get_submodule(path), leaf, _OpaqueNeuron())
    try:
        return torch.export.export(traced, (x,), strict=False)
    except SvitError:
        raise
    except Exception as error:  # torch.export and the user's forward may raise anything
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise UnsupportedError(
            f"the network cannot be traced by torch.export: {type(error).__name__}: {first}. "
            f"Its forward pass must not branch on the values of tensors."
        ) from error


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _placeholder(
    node: fx.Node, stored: dict[str, str], named: dict[str, Axes], shape: tuple[int, ...] | None
) -> Tensor | None:
    if shape is None:
        return None
    parameter = stored.get(node.name)
    axes = new_axes(shape)
    if parameter is None:
        fix([piece for axis in axes for piece in axis], "it is the network's input")
        return Tensor(axes=axes, ancestors=frozenset([node.name]))
    named[parameter] = axes
    return Tensor(axes=axes, parameter=parameter)


def _call(node: fx.Node, values: dict[fx.Node, Any], roles: Roles, shape: tuple[int, ...]) -> Any:
    schema = node.target._schema  # type: ignore[union-attr]
    given = {}
    for position, argument in enumerate(schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        raw = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, default)
        given[argument.name] = _replace(raw, values)
    ancestors = frozenset([node.name]).union(*(value.ancestors for value in tensors(given)))
    results = propagate(schema.name.rpartition("::")[2], roles, given, shape)
    several = isinstance(node.meta["val"], list | tuple)
    made = [Tensor(axes=axes, ancestors=ancestors) for axes in results]
    return made if several else made[0]


def _replace(value: Any, values: dict[fx.Node, Any]) -> Any:
    if isinstance(value, fx.Node):
        return values.get(value)
    if isinstance(value, list | tuple):
        return [_replace(item, values) for item in value]
    return value
