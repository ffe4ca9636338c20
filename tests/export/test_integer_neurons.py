"""Neurons that compute in integers as ONNX: the function, the pass that feeds it, and files that lie about it."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from spikingjelly.activation_based import layer, neuron
from torch import nn

from svitkit.compress.membranes import membrane_grids
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.export.metadata import read_metadata
from svitkit.export.pipeline import export_onnx
from svitkit.export.ranges import integer_limits
from svitkit.export.verify import compare
from svitkit.lif import LIFParams
from svitkit.lif_integer import (
    CURRENT_FRACTION,
    INT32_MAX,
    STATE_DTYPES,
    IntegerLIF,
    Integers,
    Membrane,
    integer_lif_step,
)
from svitkit.manifest import Mode
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.quantized import LARGEST_BYTE
from svitkit.onnx_check import check_model
from svitkit.onnx_lif import (
    INT4_OPSET,
    IR_VERSION,
    LIF_DOMAIN,
    LIF_OP,
    ONNX_OPSET,
    REAL_LIMIT,
    integer_attributes,
    lif_attributes,
    lif_function,
    lif_overload,
    read_integer_lif,
    read_lif,
    rounds_currents,
)
from tests.export.conftest import FAMILIES, build
from tests.export.quantized import quantize_neurons, turn_some_norms

GRIDS = {16: 12, 8: 6, 4: 3}
STEPS = 2**CURRENT_FRACTION
Wrap = Callable[..., Checkpoint]


def integers(
    bits: int, *, v_reset: float | None = 0.0, tau: float = 2.0, decay_input: bool = True, threshold: float = 1.0
) -> IntegerLIF:
    params = LIFParams(tau=tau, v_reset=v_reset, decay_input=decay_input, v_threshold=threshold)
    membrane = Membrane(bits=bits, fraction=GRIDS[bits])  # type: ignore[arg-type]
    return IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)


def lif_node(neuron: IntegerLIF, *, real: bool = False) -> onnx.NodeProto:
    return helper.make_node(
        LIF_OP,
        ["x", "v"],
        ["s", "v_next"],
        name="layer",
        domain=LIF_DOMAIN,
        overload=lif_overload(neuron.params, neuron, real=real),
        **lif_attributes(neuron.params),
        **integer_attributes(neuron, real=real),
    )


def run_onnx(
    x: Integers, v: Integers, neuron: IntegerLIF, *, opset: int = ONNX_OPSET, real: bool = False
) -> tuple[Integers, Integers]:
    """One layer in ONNX Runtime."""
    kind, state = TensorProto.FLOAT if real else TensorProto.INT32, helper.np_dtype_to_tensor_dtype(v.dtype)
    graph = helper.make_graph(
        [lif_node(neuron, real=real)],
        "g",
        [helper.make_tensor_value_info("x", kind, x.shape), helper.make_tensor_value_info("v", state, v.shape)],
        [
            helper.make_tensor_value_info("s", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("v_next", state, x.shape[1:]),
        ],
    )
    model = helper.make_model(
        graph,
        functions=[lif_function(lif_overload(neuron.params, neuron, real=real), opset)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(LIF_DOMAIN, 1)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    s, v_next = session.run(None, {"x": x, "v": v})
    return s, v_next


def by_definition(x: Integers, v: Integers, neuron: IntegerLIF) -> tuple[Integers, Integers]:
    v, fired = np.broadcast_to(v, x.shape[1:]).astype(np.int64), []
    for step in x.astype(np.int64):
        s, v = integer_lif_step(step, v, neuron)
        fired.append(s)
    return np.stack(fired).astype(np.float32), v


@pytest.mark.parametrize("opset", [ONNX_OPSET, INT4_OPSET])
@pytest.mark.parametrize(("bits", "v_reset"), itertools.product((16, 8, 4), (0.0, None)))
@pytest.mark.parametrize(("tau", "decay_input", "threshold"), [(2.0, True, 1.0), (4.0, False, 0.7)])
def test_onnx_runtime_computes_the_definition(
    bits: int, v_reset: float | None, tau: float, decay_input: bool, threshold: float, opset: int
) -> None:
    neuron = integers(bits, v_reset=v_reset, tau=tau, decay_input=decay_input, threshold=threshold)
    rng = np.random.default_rng(0)
    x = rng.integers(-4 * STEPS, 5 * STEPS, (6, 2, 5, 31)).astype(np.int32)
    v = rng.integers(neuron.membrane.low, neuron.membrane.high + 1, x.shape[1:]).astype(neuron.state_dtype)
    wanted, potential = by_definition(x, v, neuron)
    assert 0.05 < wanted.mean() < 0.95
    assert potential.min() == neuron.membrane.low or bits == 16
    s, after = run_onnx(x, v, neuron, opset=opset)
    np.testing.assert_array_equal(s, wanted)
    np.testing.assert_array_equal(after, potential)
    assert after.dtype == STATE_DTYPES[bits]


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_scalar_state_is_that_of_all_neurons_and_steps_go_on_from_each_other(bits: int) -> None:
    neuron = integers(bits)
    x = np.random.default_rng(1).integers(-2 * STEPS, 3 * STEPS, (5, 1, 40)).astype(np.int32)
    wanted, potential = by_definition(x, np.zeros(()), neuron)
    s, v = run_onnx(x, np.zeros((), neuron.state_dtype), neuron)
    np.testing.assert_array_equal(s, wanted)
    np.testing.assert_array_equal(v, potential)
    v, fired = np.zeros(x.shape[1:], neuron.state_dtype), []
    for step in x:
        s, v = run_onnx(step[None], v, neuron)
        fired.append(s[0])
    np.testing.assert_array_equal(np.stack(fired), wanted)
    np.testing.assert_array_equal(v, potential)


@pytest.mark.parametrize(("bits", "v_reset"), itertools.product((16, 8, 4), (0.0, None)))
def test_real_currents_are_rounded_to_even_and_cut_off(bits: int, v_reset: float | None) -> None:
    neuron = integers(bits, v_reset=v_reset)
    rng = np.random.default_rng(2)
    x = rng.normal(0.7, 1.5, (6, 3, 80)).astype(np.float32)
    x[:, 0, :40] = rng.integers(-3 * STEPS, 3 * STEPS, (6, 40)) / STEPS + 0.5 / STEPS  # ties
    x[0, 1, :4] = 1e9, -1e9, np.inf, -np.inf
    limit = int(REAL_LIMIT * STEPS)
    steps = np.rint(x.astype(np.float64) * STEPS).clip(-limit, limit).astype(np.int64)
    assert (steps[:, 0, :40] % 2 == 0).all()
    wanted, potential = by_definition(steps, np.zeros(()), neuron)
    s, v = run_onnx(x, np.zeros((), neuron.state_dtype), neuron, real=True)
    np.testing.assert_array_equal(s, wanted)
    np.testing.assert_array_equal(v, potential)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(("bits", "v_reset"), itertools.product((16, 8, 4), (0.0, None)))
def test_attributes_come_back_as_they_were_written(bits: int, v_reset: float | None, real: bool) -> None:
    neuron = integers(bits, v_reset=v_reset, tau=8.0, decay_input=False, threshold=0.75)
    node = lif_node(neuron, real=real)
    assert node.overload == f"{'soft' if v_reset is None else 'hard'}_int{bits}{'_real' if real else ''}"
    assert read_integer_lif(node) == neuron
    assert read_lif(node) == neuron.params
    assert rounds_currents(node) == real


def put(node: onnx.NodeProto, name: str, value: float | None) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda node: put(node, "threshold", 99), "contradict each other"),
        (lambda node: put(node, "keep", None), "contradict each other"),
        (lambda node: put(node, "membrane_fraction", None), "contradict each other"),
        (lambda node: put(node, "membrane_fraction", 15), "no valid constants"),
        (lambda node: put(node, "membrane_bits", 5), "no valid constants"),
        (lambda node: put(node, "membrane_bits", 8), "attributes mean 'hard_int8'"),
        (lambda node: put(node, "current_fraction", 40), "contradict each other"),
        (lambda node: put(node, "current_fraction", 3), "contradict each other"),
        (lambda node: put(node, "tau", 3.0), "contradict each other"),
        (lambda node: put(node, "v_reset", 0.5), "contradict each other"),
        (lambda node: put(node, "v_threshold", 1e6), "contradict each other"),
        (lambda node: put(node, "steps", 65536.0), "contradict each other"),
        (lambda node: put(node, "gain", 1.0), "attribute 'gain'"),
        (lambda node: setattr(node, "overload", "hard_int8"), "attributes mean 'hard_int16'"),
        (lambda node: setattr(node, "overload", "hard_int16_real"), "attributes mean 'hard_int16'"),
        (lambda node: setattr(node, "overload", "hard_decay"), "attributes mean 'hard_int16'"),
    ],
)
def test_attributes_that_contradict_each_other_are_refused(change: Callable[[Any], Any], says: str) -> None:
    node = lif_node(integers(16))
    change(node)
    with pytest.raises(UnsupportedError, match=says):
        read_integer_lif(node)


def images(count: int, channels: int = 2, size: int = 16) -> np.ndarray:
    x = np.random.default_rng(7).standard_normal((1, count, channels, size, size)).astype(np.float32)
    return np.repeat(x, 4, axis=0)


def neurons_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == LIF_DOMAIN]


def assert_agrees(path: Path, checkpoint: Checkpoint, x: np.ndarray) -> None:
    """Spikes are those of torch, every one, and all layers fire."""
    report = compare(path, checkpoint, x)
    report.require()
    assert [(agreement.name, agreement.differing) for agreement in report.layers if agreement.differing] == []
    assert report.logits_max_abs_diff < 1e-5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Checkpoint, Path]]:
    folder = tmp_path_factory.mktemp("neurons")

    @functools.cache
    def make(family: str, bits: int, membrane_bits: int, mode: Mode = "sequence") -> tuple[Checkpoint, Path]:
        path = folder / f"{family}-{bits}-{membrane_bits}-{mode}.onnx"
        checkpoint = quantize_neurons(build(family), bits, membrane_bits)
        export_onnx(checkpoint, path, mode=mode)
        return checkpoint, path

    return make


@pytest.mark.parametrize(("bits", "membrane_bits", "mode"), [(8, 16, "sequence"), (4, 8, "step"), (2, 4, "sequence")])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_neurons_of_a_network_become_integers_and_spike_as_in_torch(
    exported: Any, family: str, bits: int, membrane_bits: int, mode: Mode
) -> None:
    checkpoint, path = exported(family, bits, membrane_bits, mode)
    model = onnx.load(path)
    check_model(model, source="the file")
    grids = membrane_grids(checkpoint.model, membrane_bits)
    nodes = neurons_of(model)
    assert {node.name for node in nodes} == set(grids)
    assert {node.overload for node in nodes} == {f"hard_int{membrane_bits}"}
    assert [function.overload for function in model.functions] == [f"hard_int{membrane_bits}"]
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    state = helper.np_dtype_to_tensor_dtype(np.dtype(STATE_DTYPES[membrane_bits]))
    for node in nodes:
        assert kinds[node.input[0]] == TensorProto.INT32
        assert kinds[node.output[1]] == state
        found = read_integer_lif(node)
        assert found is not None
        assert (found.membrane, found.current_fraction) == (grids[node.name], CURRENT_FRACTION)
    if mode == "step":
        assert {kinds[value.name] for value in model.graph.input if value.name.endswith(".v_in")} == {state}
    told = {lif.name: lif.integer for lif in read_metadata(path).lif_layers}
    assert {name: grid and grid.membrane for name, grid in told.items()} == grids
    assert_agrees(path, checkpoint, images(20))


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


@dataclass(frozen=True)
class Division:
    """``(sums * factor + bias) / divisor - lift`` in a file.

    Attributes:
        reach: largest sums of the convolution, perhaps pooled, by channel.
    """

    reach: Integers
    factor: Integers
    bias: Integers
    divisor: int
    lift: int


def divisions(model: onnx.ModelProto) -> Iterator[Division]:
    """Finds them all; a mean divides a sum over axes and is none of them."""
    known = constants_of(model)
    limits = {value.name: limit for value, limit in integer_limits(ir.from_proto(model).graph).items()}
    by_output = {name: node for node in model.graph.node for name in node.output}
    by_input = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        divided = by_output.get(node.input[0]) if node.op_type == "Div" else None
        if divided is None or divided.op_type == "ReduceSum":
            continue
        scaled, lowered = by_output[divided.input[0]], by_input[node.output[0]]
        assert [divided.op_type, scaled.op_type, lowered.op_type] == ["Add", "Mul", "Add"]
        source = by_output[scaled.input[0]]
        while source.op_type in ("Cast", "MaxPool", "Reshape"):
            source = by_output[source.input[0]]
        constants = [known[name] for name in (scaled.input[1], divided.input[1], node.input[1], lowered.input[1])]
        assert {constant.dtype for constant in constants} == {np.dtype(np.int32)}
        factor, bias, divisor, lift = (constant.astype(np.int64) for constant in constants)
        counted = by_output[source.input[0]].input[0]
        weight = known[source.input[1]].astype(np.int64)
        reach = abs(weight.reshape(len(weight), -1)).sum(axis=1) * limits.get(counted, LARGEST_BYTE)
        yield Division(reach, factor, bias, int(divisor), -int(lift))


def assert_fits_int32(division: Division) -> Integers:
    """No intermediate result leaves int32; returns the largest products by channel."""
    products = division.reach * abs(division.factor).ravel()
    assert (products + abs(division.bias).ravel() <= INT32_MAX).all()
    assert division.lift * division.divisor <= INT32_MAX
    assert division.divisor in 2 ** np.arange(1, 31)
    return np.asarray(products)


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_too_fine_for_their_steps_are_divided_within_int32(exported: Any, family: str) -> None:
    checkpoint, path = exported(family, 8, 16)
    found = list(divisions(onnx.load(path)))
    assert found
    for division in found:
        products = assert_fits_int32(division)
        assert (division.bias.ravel() >= products).all()  # ONNX divides towards zero
    assert_agrees(path, checkpoint, 8 * images(10))


def test_factors_of_any_length_are_divided_by_as_much_as_int32_allows(tmp_path: Path) -> None:
    checkpoint = quantize_neurons(build("spikformer"), 8, 16, short=False)
    export_onnx(checkpoint, tmp_path / "long.onnx")
    found = list(divisions(onnx.load(tmp_path / "long.onnx")))
    assert len(found) > 3
    assert max(assert_fits_int32(division).max() for division in found) > INT32_MAX // 16
    assert all((division.bias.ravel() >= assert_fits_int32(division)).all() for division in found)
    first = compare(tmp_path / "long.onnx", checkpoint, images(20)).layers[0]
    assert first.agreement > 0.9999  # those behind it read other spikes


def test_norms_of_any_sign_give_the_same_spikes(tmp_path: Path) -> None:
    original = build("spikformer")
    model = copy.deepcopy(original.model)
    turn_some_norms(model)
    checkpoint = quantize_neurons(replace(original, model=model), 8, 8)
    export_onnx(checkpoint, tmp_path / "turned.onnx")
    assert_agrees(tmp_path / "turned.onnx", checkpoint, images(10))


class Net(nn.Module):
    """Neurons behind what ``between`` makes of the spikes of the layer before."""

    def __init__(self, between: str, **options: Any) -> None:
        super().__init__()
        self.conv = layer.Conv2d(2, 8, 3, padding=1, step_mode="m")
        self.lif = neuron.LIFNode(step_mode="m", detach_reset=True, **options)
        self.inner = layer.Conv2d(8, 8, 1, step_mode="m")
        self.last = neuron.LIFNode(step_mode="m", detach_reset=True, v_threshold=0.25, **options)
        self.head = nn.Linear(8, 10)
        self.average = layer.AvgPool2d(2, step_mode="m")
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.lif(self.conv(x))
        current = self.inner(s)
        if self.between == "average pool":
            current = self.average(current)
        elif self.between == "product":
            current = current * s.mean((3, 4), keepdim=True)
        elif self.between == "sum":
            current = current + s
        return self.head(self.last(current).flatten(3).mean(-1))


def net(wrap: Wrap, between: str, **options: Any) -> Checkpoint:
    torch.manual_seed(0)
    model = Net(between, **options)
    nn.init.normal_(model.conv.weight, std=0.5)
    nn.init.normal_(model.inner.weight, std=0.5)
    return wrap(model, family="tests:net", shape=(2, 6, 6))


@pytest.mark.parametrize("mode", ["sequence", "step"])
@pytest.mark.parametrize("membrane_bits", [16, 8, 4])
@pytest.mark.parametrize("between", ["average pool", "product"])
def test_neurons_round_currents_that_are_no_sums_of_integers(
    wrap: Wrap, tmp_path: Path, between: str, membrane_bits: int, mode: Mode
) -> None:
    checkpoint = quantize_neurons(net(wrap, between), 8, membrane_bits)
    export_onnx(checkpoint, tmp_path / "net.onnx", mode=mode)
    overloads = {node.name: node.overload for node in neurons_of(onnx.load(tmp_path / "net.onnx"))}
    assert overloads == {"lif": f"hard_int{membrane_bits}", "last": f"hard_int{membrane_bits}_real"}
    report = compare(tmp_path / "net.onnx", checkpoint, images(40, size=6))
    report.require()


@pytest.mark.parametrize("options", [{"v_reset": None}, {"tau": 4.0, "decay_input": False}])
def test_other_neurons_and_shortcuts_are_integers_throughout(
    wrap: Wrap, tmp_path: Path, options: dict[str, Any]
) -> None:
    checkpoint = quantize_neurons(net(wrap, "sum", **options), 4, 8)
    export_onnx(checkpoint, tmp_path / "net.onnx")
    kind = "soft" if "v_reset" in options else "hard"
    assert {node.overload for node in neurons_of(onnx.load(tmp_path / "net.onnx"))} == {f"{kind}_int8"}
    assert_agrees(tmp_path / "net.onnx", checkpoint, images(40, size=6))


def test_membranes_of_layers_that_never_run_are_refused_by_name(wrap: Wrap, tmp_path: Path) -> None:
    checkpoint = net(wrap, "sum")
    checkpoint.model.dead = neuron.LIFNode(step_mode="m", detach_reset=True)
    with pytest.raises(UnsupportedError, match="pass integer_neurons: membranes of dead are quantized"):
        export_onnx(quantize_neurons(checkpoint, 8, 8), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def node_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return neurons_of(model)[0]


def value_of(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return next(value for value in values if value.name == name)


def changed_threshold(model: onnx.ModelProto) -> None:
    put(node_of(model), "threshold", 12345)


def other_overload(model: onnx.ModelProto) -> None:
    node_of(model).overload = "hard_int16"


def real_overload(model: onnx.ModelProto) -> None:
    node_of(model).overload = "hard_int8_real"


def rounding_of_integers(model: onnx.ModelProto) -> None:
    node, integer = node_of(model), read_integer_lif(node_of(model))
    assert integer is not None
    for name, value in integer_attributes(integer, real=True).items():
        put(node, name, value)
    node.overload = "hard_int8_real"
    model.functions.append(lif_function("hard_int8_real", model.opset_import[0].version))


def wide_state(model: onnx.ModelProto) -> None:
    value_of(model, node_of(model).input[1]).type.tensor_type.elem_type = TensorProto.INT16


def real_state(model: onnx.ModelProto) -> None:
    value_of(model, node_of(model).input[1]).type.tensor_type.elem_type = TensorProto.FLOAT


def wide_state_after(model: onnx.ModelProto) -> None:
    value_of(model, node_of(model).output[1]).type.tensor_type.elem_type = TensorProto.INT16


def real_current(model: onnx.ModelProto) -> None:
    value_of(model, node_of(model).input[0]).type.tensor_type.elem_type = TensorProto.FLOAT


def changed_body(model: onnx.ModelProto) -> None:
    next(node for node in model.functions[0].node if node.op_type == "Div").op_type = "Mul"


def missing_body(model: onnx.ModelProto) -> None:
    del model.functions[:]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (changed_threshold, UnsupportedError, "contradict each other"),
        (other_overload, UnsupportedError, "attributes mean 'hard_int8'"),
        (real_overload, UnsupportedError, "attributes mean 'hard_int8'"),
        (rounding_of_integers, UnsupportedError, "the current .* is INT32, wanted FLOAT"),
        (wide_state, UnsupportedError, "the potential .* is INT16, wanted INT8"),
        (real_state, UnsupportedError, "the potential .* is FLOAT, wanted INT8"),
        (wide_state_after, UnsupportedError, "after the last step .* is INT16, wanted INT8"),
        (real_current, UnsupportedError, "the current .* is FLOAT, wanted INT32"),
        (changed_body, UnsupportedError, "is not the one svitkit writes"),
        (missing_body, ConfigError, "but brings"),
    ],
)
def test_a_tampered_file_is_refused(
    exported: Any, change: Callable[[Any], Any], error: type[Exception], says: str
) -> None:
    model = onnx.load(exported("spikformer", 4, 8, "step")[1])
    change(model)
    with pytest.raises(error, match=says):
        check_model(model, source="the file")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lif: lif["integer"]["membrane"].update(fraction=5), "describe another graph"),
        (lambda lif: lif["integer"]["membrane"].update(bits=16), "describe another graph"),
        (lambda lif: lif["integer"].update(current_fraction=15), "describe another graph"),
        (lambda lif: lif.update(integer=None), "describe another graph"),
        (lambda lif: lif["integer"]["membrane"].update(bits=7), "16, 8 or 4"),
        (lambda lif: lif["integer"].update(extra=1), "extra"),
    ],
)
def test_metadata_that_tell_another_grid_are_refused(
    exported: Any, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    model = onnx.load(exported("spikformer", 4, 8, "step")[1])
    told = json.loads(model.metadata_props[0].value)
    change(told["lif_layers"][0])
    model.metadata_props[0].value = json.dumps(told)
    path = tmp_path / "told.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=says):
        read_metadata(path)
