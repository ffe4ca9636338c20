"""Before and expected graphs, one tiny pair for what each pass does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from svitkit.errors import UnsupportedError
from svitkit.export.passes.drop_zero_biases import drop_zero_biases
from svitkit.export.passes.fold_batch_norm import fold_batch_norm
from svitkit.export.passes.fold_constants import fold_constants
from svitkit.export.passes.merge_reshapes import merge_reshapes
from svitkit.export.passes.name_layers import name_layers
from svitkit.export.passes.name_neurons import name_neurons
from svitkit.export.passes.place_constants import place_constants
from svitkit.export.passes.remove_no_ops import remove_no_ops
from svitkit.export.passes.remove_unused import remove_unused
from svitkit.export.passes.replace_einsums import replace_einsums
from svitkit.export.passes.replace_selects import replace_selects
from svitkit.export.passes.replace_sequences import replace_sequences
from svitkit.export.passes.separate_parameters import separate_parameters
from svitkit.export.pipeline import run_passes
from svitkit.lif import LIFParams

# scale = gamma / sqrt(var) = (2, -3), shift = beta - mean * scale = (10 - 2, 20 + 3)
NORM = """float[2] gamma = {4.0, -3.0}, float[2] beta = {10.0, 20.0},
    float[2] mean = {1.0, 1.0}, float[2] var = {4.0, 1.0}"""
BN = "BatchNormalization <epsilon = 0.0>"
CONV = "Conv <kernel_shape = [1], strides = [1], pads = [0, 0], dilations = [1], group = 1>"


def test_batch_norm_scales_the_convolution_and_gives_it_a_bias(parse, canonical):
    before = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {{5.0, 7.0}}, {NORM}>
        {{ a = {CONV} (x, w)  y = {BN} (a, gamma, beta, mean, var) }}""")
    expected = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {{10.0, -21.0}}, float[2] b = {{8.0, 23.0}}>
        {{ y = {CONV} (x, w, b) }}""")
    fold_batch_norm(before)
    assert canonical(before) == canonical(expected)


def test_batch_norm_scales_a_bias_that_is_there(parse, canonical):
    before = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y)
        <float[2,1,1] w = {{5.0, 7.0}}, float[2] b = {{1.0, 2.0}}, {NORM}>
        {{ a = {CONV} (x, w, b)  y = {BN} (a, gamma, beta, mean, var) }}""")
    expected = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {{10.0, -21.0}}, float[2] b = {{10.0, 17.0}}>
        {{ y = {CONV} (x, w, b) }}""")
    fold_batch_norm(before)
    assert canonical(before) == canonical(expected)


@pytest.mark.parametrize(
    ("layer", "weights", "folded"),
    [
        ("Gemm <transB = 1> (x, w, b)", "float[2,1] w = {5.0, 7.0}", "float[2,1] w = {10.0, -21.0}"),
        ("Gemm (x, w, b)", "float[1,2] w = {5.0, 7.0}", "float[1,2] w = {10.0, -21.0}"),
    ],
)
def test_batch_norm_folds_into_a_linear_layer(parse, canonical, layer, weights, folded):
    before = parse(f"""
        g (float[1,1] x) => (float[1,2] y) <{weights}, float[2] b = {{1.0, 2.0}}, {NORM}>
        {{ a = {layer}  y = {BN} (a, gamma, beta, mean, var) }}""")
    expected = parse(f"g (float[1,1] x) => (float[1,2] y) <{folded}, float[2] b = {{10.0, 17.0}}> {{ y = {layer} }}")
    fold_batch_norm(before)
    assert canonical(before) == canonical(expected)


def test_batch_norm_folds_through_reshape_and_transpose_into_a_matrix_product(parse, canonical):
    before = parse(f"""
        g (float[1,1,3,1] x) => (float[1,2,3] y) <float[1,2] w = {{5.0, 7.0}}, int64[3] s = {{1, 3, 2}}, {NORM}>
        {{ a = MatMul (x, w)  b = Reshape (a, s)  c = Transpose <perm = [0, 2, 1]> (b)
           y = {BN} (c, gamma, beta, mean, var) }}""")
    expected = parse("""
        g (float[1,1,3,1] x) => (float[1,2,3] y)
        <float[1,2] w = {10.0, -21.0}, float[2] bias = {8.0, 23.0}, int64[3] s = {1, 3, 2}>
        { a = MatMul (x, w)  d = Add (a, bias)  b = Reshape (d, s)  y = Transpose <perm = [0, 2, 1]> (b) }""")
    fold_batch_norm(before)
    assert canonical(before) == canonical(expected)


def test_batch_norm_of_a_value_with_another_reader_becomes_multiplication_and_addition(parse, canonical):
    before = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y, float[1,2,3] a) <float[2,1,1] w = {{5.0, 7.0}}, {NORM}>
        {{ a = {CONV} (x, w)  y = {BN} (a, gamma, beta, mean, var) }}""")
    expected = parse(f"""
        g (float[1,1,3] x) => (float[1,2,3] y, float[1,2,3] a)
        <float[2,1,1] w = {{5.0, 7.0}}, float[2,1] scale = {{2.0, -3.0}}, float[2,1] shift = {{8.0, 23.0}}>
        {{ a = {CONV} (x, w)  b = Mul (a, scale)  y = Add (b, shift) }}""")
    fold_batch_norm(before)
    assert canonical(before) == canonical(expected)


def test_batch_norm_with_statistics_from_outside_is_refused(parse):
    model = parse("""
        g (float[1,2,3] x, float[2] m) => (float[1,2,3] y) <float[2] one = {1.0, 1.0}>
        { y = BatchNormalization (x, one, one, m, one) }""")
    with pytest.raises(UnsupportedError, match="no constant statistics"):
        fold_batch_norm(model)


def test_constants_are_computed_and_shapes_are_known(parse, canonical):
    before = parse("""
        g (float[2,3] x) => (float[3,2] y) {
          a = Shape <start = 1> (x)  b = Constant <value_ints = [2]> ()  c = Concat <axis = 0> (a, b)
          y = Reshape (x, c)
        }""")
    expected = parse("""
        g (float[2,3] x) => (float[3,2] y) { c = Constant <value = int64[2] {3, 2}> ()  y = Reshape (x, c) }""")
    fold_constants(before)
    remove_unused(before)
    assert canonical(before) == canonical(expected)


def test_what_is_computed_from_a_parameter_stays_a_parameter(parse, canonical):
    before = parse("""
        g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1.0, 2.0, 3.0, 4.0}>
        { a = Transpose <perm = [1, 0]> (w)  y = MatMul (x, a) }""")
    expected = parse("""
        g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1.0, 3.0, 2.0, 4.0}> { y = MatMul (x, w) }""")
    fold_constants(before)
    assert canonical(before) == canonical(expected)


def test_a_neuron_with_constant_input_is_not_folded_away(parse):
    model = parse("""
        g () => (float[2,1] s) <float[2,1] x = {1.0, 2.0}, float v = {0.0}>
        { s, n = ai.svitkit.LIF <tau = 2.0, v_threshold = 1.0, v_reset = 0.0, decay_input = 1> (x, v) }""")
    fold_constants(model)
    assert [node.op_type for node in model.graph] == ["LIF"]


def test_operators_that_do_nothing_vanish(parse, canonical):
    before = parse("""
        g (float[2,3] x) => (float[2,3] y) <int64[2] s = {2, 3}> {
          a = Identity (x)  b = Cast <to = 1> (a)  c = Transpose <perm = [0, 1]> (b)  d = Reshape (c, s)
          e = Dropout (d)  f = Expand (e, s)  h = Neg (f)  y = Identity (h)
        }""")
    expected = parse("g (float[2,3] x) => (float[2,3] y) { y = Neg (x) }")
    remove_no_ops(before)
    remove_unused(before)
    assert canonical(before) == canonical(expected)
    assert [value.name for value in before.graph.outputs] == ["y"]


def test_an_identity_from_input_to_output_stays(parse):
    model = parse("g (float[2] x) => (float[2] y) { y = Identity (x) }")
    remove_no_ops(model)
    assert [node.op_type for node in model.graph] == ["Identity"]


def test_a_cast_that_changes_the_type_stays(parse):
    model = parse("g (float[2] x) => (int64[2] y) { y = Cast <to = 7> (x) }")
    remove_no_ops(model)
    assert [node.op_type for node in model.graph] == ["Cast"]


def test_chains_of_reshapes_become_one_and_equal_ones_are_shared(parse, canonical):
    before = parse("""
        g (float[2,1,6] x) => (float[3,4] y, float[3,4] z) <int64[1] axis = {1}, int64[2] s = {3, 4}> {
          a = Squeeze (x, axis)  b = Flatten <axis = 0> (a)  c = Reshape (b, s)  y = Neg (c)
          d = ReduceMean <keepdims = 0> (x, axis)  e = Reshape (d, s)  z = Abs (e)
        }""")
    expected = parse("""
        g (float[2,1,6] x) => (float[3,4] y, float[3,4] z) <int64[2] t = {9, 9}> {
          s = Constant <value = int64[2] {3, 4}> ()  a = Reshape (x, s)  y = Neg (a)  z = Abs (a) }""")
    merge_reshapes(before)
    remove_unused(before)
    assert canonical(before) == canonical(expected)


def test_a_mean_over_a_longer_axis_is_no_reshape(parse):
    model = parse("g (float[2,3] x) => (float[3] y) <int64[1] a = {0}> { y = ReduceMean <keepdims = 0> (x, a) }")
    merge_reshapes(model)
    assert [node.op_type for node in model.graph] == ["ReduceMean"]


def test_sequences_become_one_split(parse, canonical):
    before = parse("""
        g (float[1,4] x) => (float[1,2] y) {
          n = Constant <value = int64 {2}> ()  q = SplitToSequence <axis = 1> (x, n)
          i = Constant <value = int64 {0}> ()  j = Constant <value = int64 {1}> ()
          a = SequenceAt (q, i)  b = SequenceAt (q, j)  y = Sub (b, a)
        }""")
    expected = parse("""
        g (float[1,4] x) => (float[1,2] y) {
          n = Constant <value = int64[2] {2, 2}> ()  a, b = Split <axis = 1> (x, n)  y = Sub (b, a) }""")
    replace_sequences(before)
    remove_unused(before)
    assert canonical(before) == canonical(expected)


def test_a_selected_index_becomes_a_slice_without_its_axis(parse, canonical):
    before = parse("""
        g (float[3,2,4] x) => (float[2,4] y) { i = Constant <value = int64 {-2}> ()  y = Gather <axis = 0> (x, i) }""")
    expected = parse("""
        g (float[3,2,4] x) => (float[2,4] y) {
          s = Constant <value = int64[1] {1}> ()  e = Constant <value = int64[1] {2}> ()
          a = Constant <value = int64[1] {0}> ()  part = Slice (x, s, e, a)
          to = Constant <value = int64[2] {2, 4}> ()  y = Reshape (part, to) }""")
    replace_selects(before)
    assert canonical(before) == canonical(expected)


def test_a_gather_of_several_or_of_unknown_indices_stays(parse):
    model = parse("""
        g (float[3,4] x, int64 k) => (float[2,4] y, float[4] z) {
          i = Constant <value = int64[2] {0, 2}> ()  y = Gather (x, i)  z = Gather (x, k) }""")
    replace_selects(model)
    assert [node.op_type for node in model.graph] == ["Constant", "Gather", "Gather"]


@pytest.mark.parametrize(
    ("equation", "left", "right", "shape"),
    [
        ("bnd,bmd->bnm", (2, 3, 4), (2, 5, 4), (2, 3, 5)),
        ("bnm,bmd->bnd", (2, 3, 5), (2, 5, 4), (2, 3, 4)),
        ("bhnd, bhne -> bhde", (2, 3, 5, 4), (2, 3, 5, 6), (2, 3, 4, 6)),
        ("nbd,bdm->bmn", (3, 2, 4), (2, 4, 5), (2, 5, 3)),
        ("abij,bjki->akb", (2, 3, 4, 5), (3, 5, 6, 4), (2, 6, 3)),
    ],
)
def test_an_einsum_of_two_tensors_becomes_a_matrix_product(parse, equation, left, right, shape):
    one, other, out = (",".join(map(str, extents)) for extents in (left, right, shape))
    model = parse(f"""
        g (float[{one}] a, float[{other}] b) => (float[{out}] y) {{ y = Einsum <equation = "{equation}"> (a, b) }}""")
    replace_einsums(model)
    assert [node.op_type for node in model.graph].count("MatMul") == 1
    assert "Einsum" not in {node.op_type for node in model.graph}
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 3, extents).astype(np.float32) for extents in (left, right))
    (got,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(got, np.einsum(equation.replace(" ", ""), a, b))


@pytest.mark.parametrize(
    ("equation", "left", "right", "out"),
    [
        ("bii,bij->bij", "2,3,3", "2,3,4", "2,3,4"),
        ("bn,bn->bn", "2,3", "2,3", "2,3"),
        ("bnm,bd->bd", "2,3,4", "2,5", "2,5"),
        ("...n,...n->...", "2,3", "2,3", "2"),
    ],
)
def test_an_einsum_that_is_no_matrix_product_stays(parse, equation, left, right, out):
    model = parse(f"""
        g (float[{left}] a, float[{right}] b) => (float[{out}] y) {{ y = Einsum <equation = "{equation}"> (a, b) }}""")
    replace_einsums(model)
    assert [node.op_type for node in model.graph] == ["Einsum"]


def test_only_the_exporters_zero_bias_is_dropped(parse):
    model = parse(f"""
        g (float[1,1,3] x) => (float[1,1,3] y) <float[1,1,1] w = {{5.0}}, float[1] trained = {{0.0}}>
        {{ zero = Constant <value = float[1] {{0.0}}> ()  one = Constant <value = float[1] {{1.0}}> ()
           a = {CONV} (x, w, zero)  b = {CONV} (a, w, trained)  y = {CONV} (b, w, one) }}""")
    drop_zero_biases(model)
    assert [len(node.inputs) for node in model.graph if node.op_type == "Conv"] == [2, 3, 3]


def test_buffers_leave_the_initializers_and_parameters_stay(parse):
    model = parse("""
        g (float[1,2] x) => (float[1,2] y)
        <float[2] weight = {1.0, 2.0}, float[2] table = {3.0, 4.0}, float[2] unused = {5.0, 6.0}>
        { a = Mul (x, weight)  y = Add (a, table) }""")
    separate_parameters(model, {"weight"})
    assert list(model.graph.initializers) == ["weight"]
    assert [node.op_type for node in model.graph] == ["Constant", "Mul", "Add"]


def test_integers_become_initializers_and_equal_floats_one_constant(parse, canonical):
    before = parse("""
        g (float[2,3] x) => (float[3,2] y) {
          s = Constant <value = int64[2] {3, 2}> ()  a = Reshape (x, s)  h = Constant <value = float {0.5}> ()
          b = Mul (a, h)  k = Constant <value = float {0.5}> ()  y = Add (b, k)
        }""")
    expected = parse("""
        g (float[2,3] x) => (float[3,2] y) <int64[2] s = {3, 2}> {
          h = Constant <value = float {0.5}> ()  a = Reshape (x, s)  b = Mul (a, h)  y = Add (b, h) }""")
    place_constants(before)
    assert canonical(before) == canonical(expected)
    assert [node.op_type for node in before.graph].count("Constant") == 1


def test_what_no_output_needs_is_removed(parse, canonical):
    before = parse("""
        g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}, float[2] dead = {1.0, 2.0}>
        { a = Mul (x, dead)  b = Neg (a)  y = Add (x, w) }""")
    expected = parse("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Add (x, w) }")
    remove_unused(before)
    assert canonical(before) == canonical(expected)
    assert list(before.graph.initializers) == ["w"]


def test_a_neuron_of_which_only_the_state_is_read_stays(parse):
    model = parse("""
        g (float[2,1] x, float[1] v) => (float[1] n)
        { s, n = ai.svitkit.LIF <tau = 2.0, v_threshold = 1.0, v_reset = 0.0, decay_input = 1> (x, v) }""")
    remove_unused(model)
    assert [node.op_type for node in model.graph] == ["LIF"]


LIF_PAIR = """
    g (float[2,1] x, float[1] v) => (float[2,1] t) {
      s, n = ai.svitkit.LIF <tau = 2.0, v_threshold = 1.0, decay_input = 1> (x, v)
      t, m = ai.svitkit.LIF <tau = 3.0, v_threshold = 1.0, v_reset = 0.0, decay_input = 0> (s, v)
    }"""


def test_neurons_get_the_names_of_their_modules(parse):
    model = parse(LIF_PAIR)
    neurons = [("a.lif", LIFParams(v_reset=None)), ("b.lif", LIFParams(tau=3.0, decay_input=False))]
    name_neurons(model, neurons)
    assert [(node.name, node.overload) for node in model.graph] == [("a.lif", "soft_decay"), ("b.lif", "hard_plain")]
    assert [value.name for node in model.graph for value in node.outputs] == [
        "a.lif.s",
        "a.lif.v_out",
        "b.lif.s",
        "b.lif.v_out",
    ]


def test_a_lost_neuron_is_an_error(parse):
    with pytest.raises(UnsupportedError, match="2 LIF nodes for 1 neuron layers"):
        name_neurons(parse(LIF_PAIR), [("a.lif", LIFParams())])


def test_layers_get_the_names_of_their_modules(parse):
    model = parse("""
        g (float[1,2] x) => (float[1,2] y) <float[2,2] "a.fc.weight" = {1.0, 2.0, 3.0, 4.0}>
        { b = MatMul (x, "a.fc.weight")  y = MatMul (b, "a.fc.weight") }""")
    name_layers(model)
    assert model.graph[0].name == "a.fc"
    assert model.graph[1].name != "a.fc"


def test_a_failing_pass_is_named(parse):
    model = parse("""
        g (float[1,2,3] x, float[2] m) => (float[1,2,3] y) <float[2] one = {1.0, 1.0}>
        { y = BatchNormalization (x, one, one, m, one) }""")
    with pytest.raises(UnsupportedError, match="pass fold_batch_norm: batch norm"):
        run_passes(model)


def test_the_passes_leave_a_clean_graph_as_it_is(parse, canonical):
    text = f"""
        g (float[1,1,3] x) => (float[1,2,3] y) <float[2,1,1] w = {{10.0, -21.0}}, float[2] b = {{8.0, 23.0}}>
        {{ y = {CONV} (x, w, b) }}"""
    model: ir.Model = parse(text)
    run_passes(model)
    assert canonical(model) == canonical(parse(text))
