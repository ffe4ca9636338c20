"""Before and expected graphs of the passes for integer layers, and the proof of ranges."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from svitkit.errors import UnsupportedError
from svitkit.export.averages import find_average
from svitkit.export.passes.hoist_means import hoist_means
from svitkit.export.passes.order_sums import order_sums
from svitkit.export.passes.quantize_layers import quantize_layers
from svitkit.export.ranges import integer_limits
from svitkit.models.quantized import QuantizedWeight
from svitkit.models.spec import InputQuantization

HEAD = "float[3,2] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2] b = {1.0, 2.0}, int64[1] axis = {0}"
LIF = "ai.svitkit.LIF <tau = 2.0, v_threshold = 1.0, decay_input = 1>"
IMAGE = InputQuantization(scale=0.5, zero_point=3)


def limits_of(model: ir.Model) -> dict[str, int]:
    return {value.name: limit for value, limit in integer_limits(model.graph).items() if value.name}


def test_spikes_and_what_adds_and_multiplies_them_are_integers(parse) -> None:
    model = parse("""
        g (float[2,1,4,6] x, float v, float[1] real) => (float[2,1,4,4] y, float[2,1,4,1] total)
        <int64[1] axis = {3}, float[1] half = {0.5}, float[2,1,4,6] s>
        { s, t = ai.svitkit.LIF <tau = 2.0, v_threshold = 1.0, decay_input = 1> (x, v)
          two = Add (s, s)  turned = Transpose <perm = [0, 1, 3, 2]> (two)  four = Mul (two, two)
          y = MatMul (four, turned)  total = ReduceSum (two, axis)
          mixed = Add (s, real)  scaled = Mul (s, half)  mean = ReduceMean (s, axis) }""")
    assert limits_of(model) == {"s": 1, "two": 2, "turned": 2, "four": 4, "y": 4 * 2 * 6, "total": 12}


@pytest.fixture
def evaluate():
    """Runs a graph in ONNX Runtime."""

    def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
        proto = ir.to_proto(model)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    return run


def test_a_mean_of_logits_becomes_a_mean_in_front_of_the_head(parse, canonical) -> None:
    mean = "ReduceMean <keepdims = 0, noop_with_empty_axes = 0>"
    before = parse(f"""
        g (float[4,1,3] x) => (float[1,2] y) <{HEAD}>
        {{ p = MatMul (x, w)  q = Add (p, b)  y = {mean} (q, axis) }}""")
    expected = parse(f"""
        g (float[4,1,3] x) => (float[1,2] y) <{HEAD.replace("int64[1] axis = {0}", "float[1] unused = {0.0}")}>
        {{ axis = Constant <value = int64[1] {{0}}> ()  m = {mean} (x, axis)  p = MatMul (m, w)  y = Add (p, b) }}""")
    hoist_means(before)
    assert canonical(before) == canonical(expected)


@pytest.mark.parametrize(("op", "shape"), [("ReduceSum <keepdims = 0>", "1,2"), ("ReduceMean <keepdims = 1>", "1,1,2")])
def test_sums_and_means_that_keep_their_axis_stay_behind_the_product(parse, op: str, shape: str) -> None:
    before = parse(f"""
        g (float[4,1,3] x) => (float[{shape}] y) <{HEAD}>
        {{ p = MatMul (x, w)  q = Add (p, b)  y = {op} (q, axis) }}""")
    hoist_means(before)
    assert [node.op_type for node in before.graph] == ["MatMul", "Add", op.partition(" ")[0]]


@pytest.mark.parametrize(
    ("extent", "op"), [(1, "ReduceMean"), (7, "ReduceMean"), (16, "ReduceMean"), (13, "ReduceSum")]
)
def test_real_numbers_are_added_by_halves(parse, evaluate, extent: int, op: str) -> None:
    model = parse(f"""
        g (float[3,{extent}] x) => (float[3] y) <int64[1] axis = {{1}}>
        {{ y = {op} <keepdims = 0> (x, axis) }}""")
    order_sums(model)
    assert not {"ReduceMean", "ReduceSum"} & {node.op_type for node in model.graph}
    x = np.random.default_rng(0).standard_normal((3, extent)).astype(np.float32)
    parts, left = x, []
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        left += [parts[:, 2 * half]] if parts.shape[1] % 2 else []
        parts = parts[:, :half] + parts[:, half : 2 * half]
    total = parts[:, 0]
    for rest in left:
        total = total + rest
    wanted = total / np.float32(extent) if op == "ReduceMean" else total
    np.testing.assert_array_equal(evaluate(model, x=x), wanted)


def test_means_of_integers_become_a_sum_and_a_division_and_their_sums_stay(parse) -> None:
    model = parse(f"""
        g (float[2,1,3] x, float v) => (float[2,1] y, float[2,1] z) <int64[1] axis = {{2}}, float[2,1,3] s>
        {{ s, t = {LIF} (x, v)  y = ReduceMean <keepdims = 0> (s, axis)  z = ReduceSum <keepdims = 0> (s, axis) }}""")
    order_sums(model)
    assert [node.op_type for node in model.graph if node.op_type != "Constant"] == [
        "LIF",
        "ReduceSum",
        "Div",
        "ReduceSum",
    ]


def head(parse, body: str, shape: str) -> ir.Model:
    return parse(f"""
        g (float[2,1,3,4] x, float v) => (float[{shape}] y)
        <int64[1] last = {{-1}}, int64[1] first = {{0}}, float[2,1,3,4] s>
        {{ s, t = {LIF} (x, v)  {body} }}""")


@pytest.mark.parametrize(
    ("body", "shape", "channel", "axes"),
    [
        ("y = ReduceMean <keepdims = 0> (s, last)", "2,1,3", 2, (3,)),
        ("m = ReduceMean <keepdims = 0> (s, last)  y = ReduceMean <keepdims = 0> (m, first)", "1,3", 2, (0, 3)),
        ("m = ReduceMean <keepdims = 1> (s, last)  y = Transpose <perm = [0, 1, 3, 2]> (m)", "2,1,1,3", 2, (3,)),
    ],
)
def test_averages_are_followed_to_their_integers(parse, body, shape, channel, axes) -> None:
    model = head(parse, body, shape)
    found = find_average(model.graph.outputs[0], integer_limits(model.graph))
    assert found is not None
    assert (found.source.name, found.channel, found.axes) == ("s", channel, axes)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("m = ReduceMean <keepdims = 0> (s, last)  y = Add (m, v)", "2,1,3"),
        ("m = ReduceMean <keepdims = 1> (s, first)  y = ReduceMean <keepdims = 1> (m, last)", "1,1,3,1"),
    ],
)
def test_other_values_are_no_averages(parse, body: str, shape: str) -> None:
    model = head(parse, body, shape)
    assert find_average(model.graph.outputs[0], integer_limits(model.graph)) is None


def weight_of(outputs: int, inputs: int, bits: int = 8) -> QuantizedWeight:
    rng, top = np.random.default_rng(0), 2 ** (bits - 1) - 1
    integers = rng.integers(-top, top + 1, (outputs, inputs)).astype(np.int8)
    return QuantizedWeight(bits=bits, integers=integers, scale=rng.uniform(0.1, 1, outputs).astype(np.float32))


def literal(array: np.ndarray) -> str:
    return "{" + ", ".join(repr(float(value)) for value in array.ravel()) + "}"


@pytest.mark.parametrize("layer", ["Gemm <transB = 1> (x, w, b)", "Gemm (x, w, b)"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_linear_layer_on_the_input_is_exact(parse, evaluate, layer: str, bits: int) -> None:
    weight = weight_of(3, 5, bits)
    array = weight.dequantize() if "transB" in layer else weight.dequantize().T
    extents = ",".join(map(str, array.shape))
    model = parse(f"""
        g (float[2,5] x) => (float[2,3] y) <float[{extents}] w = {literal(array)}, float[3] b = {{1.0, 2.0, 3.0}}>
        {{ y = {layer} }}""")
    model.graph.opset_imports[""] = 21
    quantize_layers(model, weights={"w": weight}, image=IMAGE)
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32) * 4
    levels = np.clip(np.rint(x / np.float32(0.5)) + 3, 0, 255) - 3
    sums = (levels.astype(np.int64) @ weight.integers.T.astype(np.int64)).astype(np.float32)
    scale = (weight.scale.astype(np.float64) * 0.5).astype(np.float32)
    np.testing.assert_array_equal(evaluate(model, x=x), sums * scale + np.array([1, 2, 3], np.float32))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_counts_beyond_a_byte_are_refused(parse) -> None:
    doubling = "  ".join(f"s{n + 1} = Add (s{n}, s{n})" for n in range(8))
    model = parse(f"""
        g (float[2,5] x, float v) => (float[2,3] y)
        <float[5,3] w = {literal(weight_of(3, 5).dequantize().T)}, float[2,5] s0>
        {{ s0, t = {LIF} (x, v)  {doubling}  y = MatMul (s8, w) }}""")
    with pytest.raises(UnsupportedError, match="counts up to 256"):
        quantize_layers(model, weights={"w": weight_of(3, 5)}, image=IMAGE)
