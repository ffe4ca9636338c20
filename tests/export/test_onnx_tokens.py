"""Scores of tokens as an ONNX operator: what its body computes, and which files with it are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from svitkit.errors import ConfigError, SvitError, UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.onnx_check import load_checked
from svitkit.onnx_lif import INT4_OPSET, IR_VERSION, ONNX_OPSET
from svitkit.onnx_tokens import CRITERIA, SCORE_OP, TOKENS_DOMAIN, TOKENS_VERSION, score_function
from tests.export.reduced import reduced
from tests.models import token_reference


@pytest.mark.parametrize("shape", [(4, 1, 7, 5, 3), (1, 1, 1, 1, 1), (2, 1, 3, 1, 6), (1, 1, 33, 4, 4)], ids=str)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_body_computes_the_definition_in_onnx_runtime(criterion: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    node = helper.make_node(SCORE_OP, ["X"], ["S"], domain=TOKENS_DOMAIN)
    node.overload = criterion
    tokens = shape[3] * shape[4]
    graph = helper.make_graph(
        [node],
        "score",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("S", TensorProto.FLOAT, (1, tokens))],
    )
    imports = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(TOKENS_DOMAIN, TOKENS_VERSION)]
    model = helper.make_model(
        graph, functions=[score_function(criterion)], opset_imports=imports, ir_version=IR_VERSION
    )
    (got,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x})
    np.testing.assert_array_equal(got[0], token_reference.score(x[:, 0], criterion))


def test_a_body_is_a_copy_of_its_own_for_every_version_of_the_standard_operators() -> None:
    first = score_function("activity")
    first.node.pop()
    assert score_function("activity") != first
    assert score_function("activity", INT4_OPSET).opset_import[0].version == INT4_OPSET


def test_an_unknown_criterion_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"no overload 'beauty'\. Known: activity, difference"):
        score_function("beauty")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A network whose blocks skip tokens, as it is exported."""
    path = tmp_path_factory.mktemp("scored") / "model.onnx"
    export_onnx(reduced("spikformer", "difference"), path)
    load_checked(path)
    return onnx.load(path)


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == f"blocks.0.tokens.{name}")


def function_of(model: onnx.ModelProto) -> onnx.FunctionProto:
    return next(function for function in model.functions if function.domain == TOKENS_DOMAIN)


def foreign_body(model: onnx.ModelProto) -> None:
    next(node for node in function_of(model).node if node.op_type == "Abs").op_type = "Neg"


def body_of_the_other_criterion(model: onnx.ModelProto) -> None:
    function = function_of(model)
    function.CopyFrom(score_function("activity"))
    function.overload = "difference"


def body_that_is_not_used(model: onnx.ModelProto) -> None:
    model.functions.append(score_function("activity"))


def missing_body(model: onnx.ModelProto) -> None:
    model.functions.remove(function_of(model))


def unknown_overload(model: onnx.ModelProto) -> None:
    node_of(model, "score").overload = function_of(model).overload = "beauty"


def missing_overload(model: onnx.ModelProto) -> None:
    node_of(model, "score").overload = ""


def attribute(model: onnx.ModelProto) -> None:
    node_of(model, "score").attribute.append(helper.make_attribute("criterion", "difference"))


def second_input(model: onnx.ModelProto) -> None:
    node_of(model, "score").input.append(node_of(model, "score").input[0])


def second_output(model: onnx.ModelProto) -> None:
    node_of(model, "score").output.append("more")


def wrong_operator(model: onnx.ModelProto) -> None:
    node_of(model, "score").op_type = "Scor"


def other_version(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if entry.domain == TOKENS_DOMAIN).version = 2


def score_with_a_lying_shape(model: onnx.ModelProto) -> None:
    name = node_of(model, "score").output[0]
    value = next(value for value in model.graph.value_info if value.name == name)
    value.type.tensor_type.shape.dim[1].dim_value += 1


def score_of_a_row(model: onnx.ModelProto) -> None:
    node_of(model, "score").input[0] = node_of(model, "take").input[0]


def gather_without_axis(model: onnx.ModelProto) -> None:
    del node_of(model, "take").attribute[:]


def top_without_axis(model: onnx.ModelProto) -> None:
    del node_of(model, "top").attribute[:]


def places_without_axis(model: onnx.ModelProto) -> None:
    node = node_of(model, "places")
    kept = [item for item in node.attribute if item.name != "axis"]
    del node.attribute[:]
    node.attribute.extend(kept)


HOSTILE: list[tuple[Callable[[onnx.ModelProto], None], type[SvitError], str]] = [
    (foreign_body, UnsupportedError, r"body of ai\.svitkit\.tokens::Score 'difference' is not the one svitkit writes"),
    (body_of_the_other_criterion, UnsupportedError, "is not the one svitkit writes"),
    (body_that_is_not_used, ConfigError, "but brings"),
    (missing_body, ConfigError, "but brings"),
    (unknown_overload, UnsupportedError, "has the overload activity or difference and no attribute"),
    (missing_overload, UnsupportedError, "has the overload activity or difference and no attribute"),
    (attribute, UnsupportedError, "and no attribute"),
    (second_input, UnsupportedError, "Score takes 1 input"),
    (second_output, UnsupportedError, "gives 1 output"),
    (wrong_operator, UnsupportedError, r"unknown operator ai\.svitkit\.tokens::Scor\."),
    (other_version, UnsupportedError, r"version 2 of the operators 'ai\.svitkit\.tokens'"),
    (score_with_a_lying_shape, ConfigError, r"scores \(1, 17\); wanted \(T, B, C, H, W\) and \(B, H W\)"),
    (score_of_a_row, ConfigError, r"declares X \(4, 1, 32, 16\)"),
    (gather_without_axis, UnsupportedError, r"\(Gather\) must say axis"),
    (top_without_axis, UnsupportedError, r"\(TopK\) must say axis"),
    (places_without_axis, UnsupportedError, r"\(ScatterElements\) must say axis"),
]


@pytest.mark.parametrize(("change", "error", "message"), HOSTILE, ids=[case[0].__name__ for case in HOSTILE])
def test_a_file_whose_scores_are_not_svitkits_is_refused(
    scored: onnx.ModelProto,
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    error: type[SvitError],
    message: str,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(scored)
    change(model)
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(error, match=message):
        load_checked(path)
