"""From a checkpoint to an ONNX file: trace, translate, rewrite, describe, write.

model --trace--> ExportedProgram --torch.onnx--> onnx_ir.Model --passes--> ModelProto --check--> file
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass, TopologicalSortPass

from svitkit.errors import SvitError, UnsupportedError
from svitkit.export.lif_function import translation_table
from svitkit.export.metadata import attach_metadata
from svitkit.export.passes.drop_zero_biases import drop_zero_biases
from svitkit.export.passes.fold_batch_norm import fold_batch_norm
from svitkit.export.passes.fold_constants import fold_constants
from svitkit.export.passes.hoist_means import hoist_means
from svitkit.export.passes.integer_neurons import integer_neurons
from svitkit.export.passes.merge_reshapes import merge_reshapes
from svitkit.export.passes.name_layers import name_layers
from svitkit.export.passes.name_neurons import name_neurons
from svitkit.export.passes.name_tokens import name_tokens
from svitkit.export.passes.order_sums import order_sums
from svitkit.export.passes.place_constants import place_constants
from svitkit.export.passes.quantize_layers import quantize_layers
from svitkit.export.passes.remove_no_ops import remove_no_ops
from svitkit.export.passes.remove_unused import remove_unused
from svitkit.export.passes.replace_einsums import replace_einsums
from svitkit.export.passes.replace_selects import replace_selects
from svitkit.export.passes.replace_sequences import replace_sequences
from svitkit.export.passes.separate_parameters import separate_parameters
from svitkit.export.rates import firing_rates
from svitkit.export.token_functions import token_table
from svitkit.export.trace import TracedNetwork, trace
from svitkit.files import write_bytes
from svitkit.manifest import LIFLayer, Mode, ModelMetadata, TensorSpec
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256
from svitkit.models.plan import plan_sha256
from svitkit.onnx_check import check_model
from svitkit.onnx_lif import (
    INT4_OPSET,
    IR_VERSION,
    LIF_DOMAIN,
    LIF_VERSION,
    ONNX_OPSET,
    integer_grid,
    lif_function,
    read_integer_lif,
)
from svitkit.onnx_tokens import TOKENS_DOMAIN, TOKENS_VERSION, score_function

Pass = Callable[[ir.Model], None]
FOLDING: tuple[Pass, ...] = (
    fold_constants,
    replace_sequences,
    replace_selects,
    replace_einsums,
    fold_constants,
    remove_no_ops,
    merge_reshapes,
    remove_unused,
    remove_no_ops,
    fold_batch_norm,
    drop_zero_biases,
    merge_reshapes,
    remove_no_ops,
)
FINISHING: tuple[Pass, ...] = (place_constants, remove_unused, name_layers)
PASSES: tuple[Pass, ...] = (*FOLDING, *FINISHING)


def export_onnx(
    checkpoint: Checkpoint, path: Path, *, mode: Mode = "sequence", calibration: torch.Tensor | None = None
) -> ModelMetadata:
    """Writes a trained network as ONNX.

    Args:
        checkpoint: the network and what is known about it.
        path: the file to write; it appears complete or not at all.
        mode: ``sequence`` (all time steps inside) or ``step`` (one step, states as inputs and outputs).
        calibration: (T, N, C, H, W) float32, normalized inputs on which firing rates are measured; None for no rates.

    Returns:
        The metadata that the file carries.

    Raises:
        UnsupportedError: the network cannot be expressed; nothing is written.
    """
    spec = checkpoint.spec
    traced = trace(
        checkpoint.model,
        input_shape=spec.input_shape,
        timesteps=spec.timesteps,
        static_input=spec.static_input,
        mode=mode,
    )
    model = translate(traced, mode=mode)
    run_passes(model, passes_for(checkpoint))
    proto = to_proto(model)
    rates = {} if calibration is None else firing_rates(checkpoint.model, calibration)
    metadata = _describe(checkpoint, proto, traced, mode=mode, rates=rates)
    attach_metadata(proto, metadata)
    check_model(proto, source=str(path))
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return metadata


def translate(traced: TracedNetwork, *, mode: Mode) -> ir.Model:
    """Turns a traced program into ONNX as torch writes it, with neurons, parameters and states named.

    Raises:
        UnsupportedError: torch has no ONNX translation for an operator of the network.
    """
    names = [neuron.name for neuron in traced.neurons] if mode == "step" else []
    with _quiet():
        try:
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                opset_version=ONNX_OPSET,
                custom_translation_table={**translation_table(), **token_table()},
                input_names=["input", *[f"{name}.v_in" for name in names]],
                output_names=["logits", *[f"{name}.v_out" for name in names]],
                optimize=False,
                verbose=False,
            )
        except Exception as error:
            raise UnsupportedError(f"torch cannot write the network as ONNX: {_root_cause(error)}.") from None
    if program is None:
        raise UnsupportedError("torch wrote no ONNX for the network.")
    model = program.model
    name_neurons(model, [(neuron.name, neuron.params) for neuron in traced.neurons])
    name_tokens(model, traced.token_gates)
    separate_parameters(model, set(traced.program.graph_signature.inputs_to_parameters.values()))
    for name, value in list(model.graph.initializers.items()):
        value.name = name.removeprefix("network.")
    ShapeInferencePass()(model)
    return model


def passes_for(checkpoint: Checkpoint) -> tuple[Pass, ...]:
    """Returns the passes for a network: where it has integers, those that make integer products and neurons too."""
    quantization = checkpoint.spec.quantization
    if quantization is None:
        return PASSES
    to_integers = functools.partial(quantize_layers, weights=checkpoint.quantized, image=quantization.input)
    functools.update_wrapper(to_integers, quantize_layers)
    neurons: tuple[Pass, ...] = ()
    if quantization.membranes:
        to_integer_neurons = functools.partial(integer_neurons, membranes=quantization.membranes)
        functools.update_wrapper(to_integer_neurons, integer_neurons)
        neurons = (to_integer_neurons, remove_unused)
    cleaning = (order_sums, merge_reshapes, remove_no_ops)
    return (*FOLDING, hoist_means, to_integers, remove_unused, *neurons, *cleaning, *FINISHING)


def run_passes(model: ir.Model, passes: tuple[Pass, ...] = PASSES) -> None:
    """Runs every pass in order.

    Raises:
        SvitError: a pass refuses the graph; the message names it and those before it.
    """
    for index, rewrite in enumerate(passes):
        done = ", ".join(step.__name__ for step in passes[:index]) or "none"
        try:
            rewrite(model)
        except SvitError as error:
            raise type(error)(f"pass {rewrite.__name__}: {error}") from None
        except Exception as error:
            raise UnsupportedError(
                f"pass {rewrite.__name__} failed: {type(error).__name__}: {error}. Passes before it: {done}."
            ) from error
    TopologicalSortPass()(model)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Serializes the rewritten graph with the ``LIF`` functions it uses and a shape for every value."""
    model.ir_version = IR_VERSION
    model.graph.name, model.producer_name, model.producer_version = "svitkit", "svitkit", producer_version()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    proto = ir.to_proto(model)
    del proto.opset_import[:], proto.functions[:]
    has_short_weights = any(tensor.data_type == onnx.TensorProto.INT4 for tensor in proto.graph.initializer)
    opset = INT4_OPSET if has_short_weights else ONNX_OPSET
    proto.opset_import.extend([onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(LIF_DOMAIN, LIF_VERSION)])
    for overload in sorted({node.overload for node in proto.graph.node if node.domain == LIF_DOMAIN}):
        proto.functions.append(lif_function(overload, opset))
    criteria = sorted({node.overload for node in proto.graph.node if node.domain == TOKENS_DOMAIN})
    if criteria:
        proto.opset_import.append(onnx.helper.make_opsetid(TOKENS_DOMAIN, TOKENS_VERSION))
        proto.functions.extend(score_function(criterion, opset) for criterion in criteria)
    return proto


def producer_version() -> str:
    """Returns the installed version of svitkit, ``0`` in a tree that is not installed."""
    try:
        return version("svitkit")
    except PackageNotFoundError:
        return "0"


def _describe(
    checkpoint: Checkpoint, proto: onnx.ModelProto, traced: TracedNetwork, *, mode: Mode, rates: dict[str, float]
) -> ModelMetadata:
    spec = checkpoint.spec
    integers = {node.name: read_integer_lif(node) for node in proto.graph.node if node.domain == LIF_DOMAIN}
    return ModelMetadata(
        family=spec.family,
        mode=mode,
        timesteps=spec.timesteps,
        static_input=spec.static_input,
        input=_tensor_spec(proto.graph.input[0]),
        output=_tensor_spec(proto.graph.output[0]),
        lif_layers=tuple(
            LIFLayer(
                name=neuron.name,
                params=neuron.params,
                state_shape=neuron.state_shape,
                firing_rate=rates.get(neuron.name),
                integer=integer_grid(integers[neuron.name]),
            )
            for neuron in traced.neurons
        ),
        normalization=spec.normalization,
        class_names=spec.class_names,
        parameter_bytes=parameter_initializer_bytes(proto),
        original_parameter_bytes=spec.original_parameter_bytes,
        checkpoint_sha256=checkpoint_sha256(checkpoint),
        plan_sha256=None if spec.plan is None else plan_sha256(spec.plan),
        producer=f"svitkit {producer_version()}",
    )


def parameter_initializer_bytes(proto: onnx.ModelProto) -> int:
    """Returns the bytes of the parameters in the file: float32, int32, int8, and 4-bit integers two to a byte."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT8, onnx.TensorProto.INT4)
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer if tensor.data_type in kinds)


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return TensorSpec(name=value.name, shape=shape)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(". ")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
