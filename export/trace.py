"""From a trained network to a traced program in which every neuron layer is one operator with explicit state.

The network itself is not touched: a copy is made in which each neuron module is replaced by one that calls
``svitkit::lif`` and hands its state over through a :class:`StateTape`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

import svitkit.export.lif_function  # noqa: F401  registers the operator svitkit::lif
from svitkit.errors import ConfigError, SvitError, UnsupportedError
from svitkit.lif import LIFParams
from svitkit.manifest import Mode
from svitkit.models.neurons import lif_params, neuron_layers
from svitkit.models.quantized import quantize_input
from svitkit.models.tokens import TokenGate


@dataclass(frozen=True, kw_only=True)
class TracedNeuron:
    """One neuron layer as it was met in execution.

    Attributes:
        name: qualified name of the module in the user's network.
        params: its constants.
        state_shape: shape of the membrane potential, batch axis included.
    """

    name: str
    params: LIFParams
    state_shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TracedNetwork:
    """A traced network, its neuron layers and what chooses tokens, in the order of execution."""

    program: ExportedProgram
    neurons: tuple[TracedNeuron, ...]
    token_gates: tuple[str, ...] = ()


class StateTape:
    """Carries the membrane potentials past the network's own calls.

    Attributes:
        before: name -> (...) float32, state before the first step; a layer that is not here starts at rest.
        after: name -> (...) float32, state after the last step, in the order of execution.
    """

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def load(self, before: dict[str, torch.Tensor]) -> None:
        """Sets the states before the first step and forgets the last run."""
        self.before, self.after = dict(before), {}


class TracedLIF(torch.nn.Module):
    """Stands in for one neuron layer."""

    def __init__(self, name: str, params: LIFParams, tape: StateTape) -> None:
        super().__init__()
        self.layer_name, self.params, self.tape = name, params, tape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (T, ...) input currents to (T, ...) spikes."""
        name, params = self.layer_name, self.params
        if name in self.tape.after:
            raise UnsupportedError(
                f"neuron layer {name} is called twice in one forward pass; each call would need a state of its own. "
                f"Give every call its own module."
            )
        v = self.tape.before.get(name)
        v = x.new_full((), params.v_initial) if v is None else v
        constants = (params.tau, params.v_threshold, params.v_reset, params.decay_input)
        spikes, self.tape.after[name] = torch.ops.svitkit.lif(x, v, name, *constants)
        return spikes  # type: ignore[no-any-return]


class TracedModel(torch.nn.Module):
    """The copied network behind the inputs and outputs of the exported graph.

    Args:
        model: the user's network, left as it is.
        timesteps: T of the traced graph, 1 in step mode.
        static_input: whether the input is one image (B, C, H, W), to be shown T times.
        states: the layers whose states are inputs and outputs, in that order; empty in sequence mode.
    """

    def __init__(self, model: torch.nn.Module, *, timesteps: int, static_input: bool, states: tuple[str, ...]) -> None:
        super().__init__()
        self.tape = StateTape()
        nodes = neuron_layers(model)
        if not nodes:
            raise UnsupportedError(f"{type(model).__name__} has no spiking neuron; svitkit exports spiking networks.")
        swap = {id(node): TracedLIF(name, lif_params(node), self.tape) for name, node in nodes.items()}
        self.params = {name: lif_params(node) for name, node in nodes.items()}
        self.network = copy.deepcopy(model, swap).eval().requires_grad_(False)
        quantize_input(self.network, None)  # the graph says it by an operator of its own
        self.timesteps, self.static_input, self.states = timesteps, static_input, states

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the logits (B, classes) and, in step mode, the states after the step."""
        self.tape.load(dict(zip(self.states, states, strict=True)))
        if self.static_input:
            x = x.expand(self.timesteps, *x.shape)
        logits = self.network(x)
        if logits.ndim == 3:
            logits = logits.mean(0) if self.timesteps > 1 else logits.squeeze(0)
        return (logits, *(self.tape.after[name] for name in self.states))


def trace(
    model: torch.nn.Module, *, input_shape: tuple[int, ...], timesteps: int, static_input: bool, mode: Mode
) -> TracedNetwork:
    """Traces a network with batch size 1.

    Args:
        model: takes (T, B, C, H, W) float32 and returns (B, classes) or (T, B, classes).
        input_shape: (C, H, W).
        timesteps: T of one inference.
        static_input: whether the data set's inputs are single images.
        mode: ``sequence`` holds all time steps, ``step`` one.

    Raises:
        UnsupportedError: the network changes a buffer, branches on data, calls a neuron twice, has another
            neuron, or chooses tokens by all time steps in step mode.
        ConfigError: the network does not accept an input of this shape.
    """
    gates = {name: module for name, module in model.named_modules() if isinstance(module, TokenGate)}
    looking = [name for name, gate in gates.items() if gate.reduction.looks]
    if looking and mode == "step":
        raise UnsupportedError(
            f"{looking[0]} chooses tokens by their spikes in all time steps, and step mode has one at a time. "
            f"Export with mode 'sequence', or reduce tokens with the criterion 'grid' alone."
        )
    steps = timesteps if mode == "sequence" else 1
    static = static_input and mode == "sequence"
    x = torch.zeros(1, *input_shape) if static else torch.zeros(steps, 1, *input_shape)
    probe = TracedModel(model, timesteps=steps, static_input=static, states=())
    neurons = _execution_order(probe, x)
    names = tuple(neuron.name for neuron in neurons) if mode == "step" else ()
    traced = TracedModel(model, timesteps=steps, static_input=static, states=names)
    states = tuple(torch.zeros(neuron.state_shape) for neuron in neurons) if mode == "step" else ()
    return TracedNetwork(
        program=_exported(traced, (x, *states)), neurons=neurons, token_gates=_met(probe, x, tuple(gates))
    )


def _execution_order(probe: TracedModel, x: torch.Tensor) -> tuple[TracedNeuron, ...]:
    x = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    buffers = {name: (value, value._version, value.clone()) for name, value in probe.network.named_buffers()}
    logits = _run(probe, x)
    for name, value in probe.network.named_buffers():
        before, version, content = buffers.get(name, (None, 0, value))
        if before is not value or version != value._version or not torch.equal(content, value):
            raise UnsupportedError(
                f"the network changes its buffer '{name}' in forward(); an exported graph would silently forget it. "
                f"Only the membrane potentials of neuron layers are state: remove the buffer or make it constant."
            )
    if logits.ndim != 2 or logits.shape[0] != 1:
        raise UnsupportedError(
            f"the network returns shape {tuple(logits.shape)} for one input; wanted (1, classes) or (T, 1, classes)."
        )
    _refuse_memory(probe, x, logits)
    return tuple(
        TracedNeuron(name=name, params=probe.params[name], state_shape=tuple(state.shape))
        for name, state in probe.tape.after.items()
    )


def _met(probe: TracedModel, x: torch.Tensor, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of modules in the order of execution."""
    met: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        return lambda *_: met.append(name)

    handles = [probe.network.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    _run(probe, x)
    for handle in handles:
        handle.remove()
    return tuple(met)


def _run(probe: TracedModel, x: torch.Tensor) -> torch.Tensor:
    try:
        with torch.no_grad():
            return probe(x.clone())[0]  # type: ignore[no-any-return]
    except SvitError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the network does not run on an input of shape {tuple(x.shape)}: {_first_line(error)}. "
            f"Check input_shape, timesteps and static_input of the checkpoint."
        ) from None


def _refuse_memory(probe: TracedModel, x: torch.Tensor, logits: torch.Tensor) -> None:
    """Runs the probe again: neurons start at rest each time, so whatever differs was remembered elsewhere."""
    before = {
        (name, key): value for name, module in probe.network.named_modules() for key, value in vars(module).items()
    }
    if torch.equal(_run(probe, x), logits):
        return
    changed = [
        f"{name}.{key}".lstrip(".")
        for name, module in probe.network.named_modules()
        for key, value in vars(module).items()
        if before.get((name, key)) is not value
    ]
    raise UnsupportedError(
        f"the network gives another result when it runs again: it remembers something outside its neurons in "
        f"{', '.join(changed) or 'a place that is not one of its attributes'}. Remove that state, or randomness."
    )


def _exported(traced: TracedModel, arguments: tuple[torch.Tensor, ...]) -> ExportedProgram:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(traced, arguments)
    except SvitError:
        raise
    except Exception as error:
        name = type(error).__name__
        cause = (
            "its control flow depends on data"
            if "DataDependent" in name or "data-dependent" in str(error)
            else f"{name}: {_first_line(error)}"
        )
        raise UnsupportedError(
            f"the network cannot be traced: {cause}. "
            f"Rewrite forward() so that it runs the same operators for every input."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
