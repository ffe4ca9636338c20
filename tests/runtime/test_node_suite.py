"""ONNX's own tests of the operators that svitkit's files have: each passes or is refused, as the list says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from svitkit.boards.board import load_board
from svitkit.errors import SvitError
from svitkit.onnx_check import ALLOWED_OPS
from svitkit.runtime.lowering.rules import RULES
from tests.runtime import node_suite

NEEDS_QEMU = pytest.mark.skipif(
    shutil.which("qemu-aarch64-static") is None or not Path("/usr/aarch64-linux-gnu").is_dir(),
    reason="needs qemu-user-static and libc6-arm64-cross",
)


@pytest.mark.parametrize("board", ["host", pytest.param("qemu-cortex-a72", marks=NEEDS_QEMU)])
def test_every_case_does_what_the_list_says(board: str, tmp_path: Path) -> None:
    found, listed = node_suite.run_suite(load_board(board), tmp_path), node_suite.read_list()
    differing = [
        f"{name}: listed as {listed.get(name, 'nothing')!r}, got {found.get(name, 'no such case')!r}"
        for name in sorted(found.keys() | listed.keys())
        if found.get(name) != listed.get(name)
    ]
    assert not differing, "\n".join([*differing, "If this is meant: python -m tests.runtime.node_suite"])


def test_every_operator_with_a_kernel_has_a_case() -> None:
    known = {op for case in node_suite.cases().values() for op in node_suite.operators(case)}
    assert known == ALLOWED_OPS
    assert set(RULES) - known == {"LIF", "Score"}  # these are svitkit's own


def test_most_operators_pass_somewhere() -> None:
    listed = node_suite.read_list()
    passing = {name for name, what in listed.items() if what == node_suite.PASS}
    operators = {op for name in passing for op in node_suite.operators(node_suite.cases()[name])}
    refused = {"AveragePool", "Cast", "Concat", "Constant", "ConvInteger", "MatMulInteger", "QuantizeLinear"}
    assert operators == ALLOWED_OPS - refused - {"ScatterElements", "TopK"}


def lowered(tmp_path: Path, node: onnx.NodeProto, inputs: dict[str, np.ndarray], output: np.ndarray) -> None:
    """Translates a network of one node, made as the cases are."""
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in inputs.items()
        ],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(output.dtype), output.shape)],
    )
    case = node_suite.TestCase(
        name="one",
        model_name="one",
        url=None,
        model_dir=None,
        model=helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]),
        data_sets=[(list(inputs.values()), [output])],
        kind="node",
        rtol=0.001,
        atol=1e-7,
    )
    list(node_suite.networks(case, load_board("host"), tmp_path))


X = np.ones((3, 4), np.float32)


def test_a_bias_for_every_position_is_refused_though_its_size_would_fit(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    inputs = {"x": X, "w": np.ones((4, 3), np.float32), "b": np.ones((3, 1), np.float32)}
    with pytest.raises(SvitError, match=r"a bias of shape \(3, 1\) has no kernel"):
        lowered(tmp_path, node, inputs, np.ones((3, 3), np.float32))


IMAGE = np.ones((1, 4, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("weight", "bias", "groups"),
    [((4, 1, 1, 1), 4, 0), ((4, 1, 1, 1), 4, -1), ((4, 1, 1, 1), 4, 3), ((4, 1, 1, 1), 4, 1), ((4, 4, 1, 1), 3, 1)],
)
def test_weights_that_do_not_fit_their_input_are_refused(
    tmp_path: Path, weight: tuple[int, ...], bias: int, groups: int
) -> None:
    inputs = {"x": IMAGE, "w": np.ones(weight, np.float32), "b": np.ones(bias, np.float32)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups)
    with pytest.raises(SvitError, match=r"do not fit an input \(1, 4, 4, 4\)"):
        lowered(tmp_path, node, inputs, IMAGE)


@pytest.mark.parametrize("size", [2, 1 << 9, 1 << 20])
def test_windows_without_end_are_refused(tmp_path: Path, size: int) -> None:
    pad = size // 2 if size > 2 else 2
    out = np.ones((1, 4, *[4 + 2 * pad - size + 1] * 2), np.float32)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[size] * 2, pads=[pad] * 4)
    with pytest.raises(SvitError, match="only up to 65536 values"):
        lowered(tmp_path, node, {"x": IMAGE}, out)


@pytest.mark.parametrize("divisor", [0.0, 1e-45])
def test_divisions_that_are_known_to_overflow_are_refused(tmp_path: Path, divisor: float) -> None:
    node = helper.make_node("Div", ["x", "w"], ["y"])
    with pytest.raises(SvitError, match="the divisor is 0"):
        lowered(tmp_path, node, {"x": X, "w": np.array(divisor, np.float32)}, X)


def test_a_bias_that_is_too_long_is_refused(tmp_path: Path) -> None:
    inputs = {"x": X, "w": np.ones((4, 3), np.float32), "b": np.ones(5, np.float32)}
    with pytest.raises(SvitError, match=r"a bias of shape \(5,\) has no kernel"):
        lowered(tmp_path, helper.make_node("Gemm", ["x", "w", "b"], ["y"]), inputs, np.ones((3, 3), np.float32))


def test_axes_of_any_rank_are_read_as_a_row(tmp_path: Path) -> None:
    for axes in (np.array(0), np.array([[0]])):
        lowered(tmp_path, helper.make_node("ReduceSum", ["x", "a"], ["y"]), {"x": X, "a": axes}, X[:1])


def test_padding_that_is_left_open_is_refused_though_pads_are_there(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER", pads=[0, 0, 0, 0])
    with pytest.raises(SvitError, match="leaves its padding open"):
        lowered(tmp_path, node, {"x": np.ones((1, 1, 4, 4), np.float32)}, np.ones((1, 1, 4, 4), np.float32))


def test_integers_as_input_are_refused(tmp_path: Path) -> None:
    integers = np.ones((3, 4), np.int8)
    with pytest.raises(SvitError, match="the first input is 'x', INT8; wanted a float32 tensor"):
        lowered(tmp_path, helper.make_node("Add", ["x", "w"], ["y"]), {"x": integers, "w": integers}, integers)
