"""Which modules of a network are neurons, and what their constants are."""

from __future__ import annotations

from spikingjelly.activation_based import base, layer
from spikingjelly.activation_based.neuron import BaseNode, LIFNode
from torch import nn

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams

NEURON_PACKAGE = "spikingjelly.activation_based.neuron"
FREE_METHODS = {
    "__init__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__qualname__",
    "extra_repr",
    "__static_attributes__",
}
STATELESS_IN_INFERENCE = (layer.Dropout, layer.Dropout2d)


def lif_params(node: nn.Module, name: str = "") -> LIFParams:
    """Returns the constants of a layer of LIF neurons.

    Args:
        node: a module that behaves exactly as spikingjelly's multi-step ``LIFNode``.
        name: the layer's qualified name, for the error message.

    Raises:
        UnsupportedError: the module has other dynamics, or an option that the LIF operator does not have.
    """
    where = f"layer '{name}' ({type(node).__name__})" if name else f"neuron {type(node).__name__}"
    wanted = "Use spikingjelly's LIFNode, or a subclass that leaves its dynamics alone."
    if not isinstance(node, LIFNode):
        raise UnsupportedError(f"{where} is not a leaky integrate-and-fire neuron that svitkit can express. {wanted}")
    changed = _changed_dynamics(node)
    if changed:
        raise UnsupportedError(f"{where} changes the dynamics of LIFNode in {', '.join(changed)}. {wanted}")
    if node.step_mode != "m":
        raise UnsupportedError(f"{where} runs in step mode '{node.step_mode}', wanted 'm'. Set it with set_step_mode.")
    if not getattr(node.surrogate_function, "spiking", True):
        raise UnsupportedError(f"{where} has a surrogate function that does not spike. Switch its spiking mode on.")
    if node._neuron_precision is not None:
        raise UnsupportedError(f"{where} computes in reduced precision. Switch that off for deployment.")
    v_reset = None if node.v_reset is None else float(node.v_reset)
    return LIFParams(
        tau=float(node.tau),
        v_threshold=float(node.v_threshold),
        v_reset=v_reset,
        decay_input=bool(node.decay_input),
    )


def _changed_dynamics(node: LIFNode) -> list[str]:
    own = {name for kind in type(node).__mro__[: type(node).__mro__.index(LIFNode)] for name in vars(kind)}
    known = {name for kind in LIFNode.__mro__ for name in vars(kind)}
    replaced = {name for name in vars(node) if callable(vars(node)[name]) and name in known}
    return sorted(((own & known) - FREE_METHODS) | replaced)


def neuron_layers(model: nn.Module) -> dict[str, LIFNode]:
    """Finds every layer of neurons of a network.

    Returns:
        The modules by qualified name, in the order in which the network declares them.

    Raises:
        UnsupportedError: a module keeps state or spikes, and is no LIF neuron; the message names layer and class.
    """
    layers: dict[str, LIFNode] = {}
    for name, module in model.named_modules():
        if not _is_neuron(module):
            continue
        lif_params(module, name)
        assert isinstance(module, LIFNode)
        layers[name] = module
    return layers


def _is_neuron(module: nn.Module) -> bool:
    if type(module) in STATELESS_IN_INFERENCE:
        return False
    return isinstance(module, BaseNode | base.MemoryModule) or type(module).__module__.startswith(NEURON_PACKAGE)
