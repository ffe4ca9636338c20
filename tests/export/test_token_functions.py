"""Networks of fewer tokens as ONNX: what the graph says, and that ONNX Runtime computes what torch does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from spikingjelly.activation_based import layer, neuron
from torch import nn

from svitkit.errors import UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.export.token_functions import TOKEN_AXIS
from svitkit.export.verify import verify
from svitkit.manifest import Mode
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.liven import liven
from svitkit.models.spec import TokenCriterion, TokenReduction
from svitkit.models.tokens import reduce_tokens
from svitkit.onnx_tokens import TOKENS_DOMAIN, score_function
from tests.export.quantized import quantize, quantize_neurons
from tests.export.reduced import FAMILIES, images, reduced

Rest = Literal["skip", "drop"]
CASES: list[tuple[TokenCriterion, Rest]] = [
    ("difference", "skip"),
    ("activity", "skip"),
    ("grid", "skip"),
    ("learned", "drop"),
    ("activity", "drop"),
]
FAST = {
    ("spikformer", "learned", "drop"),
    ("qkformer", "difference", "skip"),
}
CHOOSING = ("Score", "TopK", "ScatterElements")


Made = Callable[..., tuple[Checkpoint, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Exports a network of fewer tokens once."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def make(family: str, criterion: TokenCriterion, rest: Rest, mode: Mode = "sequence") -> tuple[Checkpoint, Path]:
        checkpoint, path = reduced(family, criterion, rest), folder / f"{family}-{criterion}-{rest}-{mode}.onnx"
        export_onnx(checkpoint, path, mode=mode)
        return checkpoint, path

    return make


def assert_proven(checkpoint: Checkpoint, path: Path, *, layers: int = 9) -> None:
    """Every layer's spikes are torch's, for inputs that are multiples of 1/16."""
    x = (images(checkpoint, 12) * 16).round() / 16
    report = verify(path, checkpoint, x.numpy())
    assert report.argmax_agreement == 1
    assert len(report.layers) >= layers


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = [node for node in model.graph.node if node.name == name]
    return found


def constant(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any]:
    (found,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return numpy_helper.to_array(found)


@pytest.mark.parametrize(
    ("family", "criterion", "rest"),
    [
        pytest.param(family, *case, marks=() if (family, *case) in FAST else pytest.mark.slow)
        for family in FAMILIES
        for case in CASES
    ],
)
def test_onnx_runtime_chooses_and_computes_the_tokens_that_torch_does(
    made: Made, family: str, criterion: TokenCriterion, rest: Rest
) -> None:
    assert_proven(*made(family, criterion, rest))


def test_the_nodes_have_the_name_of_the_block_and_of_what_they_do(made: Made) -> None:
    model = onnx.load(made("qkformer", "difference", "skip")[1])
    names = [node.name for node in model.graph.node if ".tokens." in node.name]
    steps = ("score", "top", "take", "places", "put")
    assert names == [f"{block}.tokens.{what}" for block in ("stage1.0", "stage2.0") for what in steps]
    operators = ["Score", "TopK", "Gather", "ScatterElements", "Gather"]
    assert [node_of(model, name).op_type for name in names] == 2 * operators
    for block, kept, tokens in (("stage1.0", 8, 16), ("stage2.0", 2, 4)):
        assert node_of(model, f"{block}.tokens.score").overload == "difference"
        assert constant(model, node_of(model, f"{block}.tokens.top").input[1]).tolist() == [kept]
        places = node_of(model, f"{block}.tokens.places")
        assert constant(model, places.input[0]).tolist() == list(range(kept, kept + tokens))
        assert constant(model, places.input[2]).tolist() == list(range(kept))
    functions = [function for function in model.functions if function.domain == TOKENS_DOMAIN]
    assert functions == [score_function("difference")]


def test_tokens_that_drop_out_are_not_put_back(made: Made) -> None:
    model = onnx.load(made("spikformer", "learned", "drop")[1])
    names = [node.name for node in model.graph.node if ".tokens." in node.name]
    steps = ("fc1", "lif1", "fc2", "top", "take")
    assert names == [f"blocks.{block}.tokens.{what}" for block in (0, 1) for what in steps]
    assert not {"Score", "ScatterElements", "Concat"} & {node.op_type for node in model.graph.node}
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.value_info}
    for block, kept in ((0, 8), (1, 4)):
        taken = node_of(model, f"blocks.{block}.tokens.take")
        assert shapes[taken.output[0]][TOKEN_AXIS] == kept


@pytest.mark.parametrize("mode", ["sequence", "step"])
def test_a_fixed_choice_is_constants_and_has_a_step_mode(made: Made, mode: Mode) -> None:
    checkpoint, path = made("spikformer", "grid", "skip", mode)
    model = onnx.load(path)
    assert not {node.op_type for node in model.graph.node} & set(CHOOSING)
    assert not [function for function in model.functions if function.domain == TOKENS_DOMAIN]
    taken = constant(model, node_of(model, "blocks.0.tokens.take").input[1]).tolist()
    places = constant(model, node_of(model, "blocks.0.tokens.put").input[1]).tolist()
    assert len(taken) == 8
    assert places == [taken.index(token) if token in taken else 8 + token for token in range(16)]
    assert_proven(checkpoint, path)


@pytest.mark.parametrize(
    ("criterion", "rest"), [("difference", "skip"), ("activity", "drop"), ("learned", "skip"), ("learned", "drop")]
)
def test_a_choice_that_looks_at_all_steps_has_no_step_mode(
    tmp_path: Path, criterion: TokenCriterion, rest: Rest
) -> None:
    says = "blocks.0.tokens chooses tokens by their spikes in all time steps.*mode 'sequence'.*criterion 'grid'"
    with pytest.raises(UnsupportedError, match=says):
        export_onnx(reduced("spikformer", criterion, rest), tmp_path / "model.onnx", mode="step")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "criterion", "rest", "bits"),
    [
        ("spike-driven-transformer", "activity", "skip", 4),
        pytest.param("spikformer", "difference", "skip", 8, marks=pytest.mark.slow),
        pytest.param("qkformer", "grid", "skip", 8, marks=pytest.mark.slow),
        pytest.param("qkformer", "difference", "skip", 4, marks=pytest.mark.slow),
    ],
)
def test_integer_networks_choose_as_torch_does(
    tmp_path: Path, family: str, criterion: TokenCriterion, rest: Rest, bits: int
) -> None:
    whole = reduced(family, criterion, rest)
    checkpoint = quantize(whole, 8) if bits == 8 else quantize_neurons(whole, bits, 8)
    export_onnx(checkpoint, tmp_path / "model.onnx")
    assert_proven(checkpoint, tmp_path / "model.onnx")


class Flat(nn.Module):
    """Takes and gives (T, B, C, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = layer.Conv1d(width, 2 * width, 1, bias=False, step_mode="m")
        self.bn1 = layer.BatchNorm1d(2 * width, step_mode="m")
        self.lif1 = neuron.LIFNode(step_mode="m", detach_reset=True)
        self.fc2 = layer.Conv1d(2 * width, width, 1, bias=False, step_mode="m")
        self.bn2 = layer.BatchNorm1d(width, step_mode="m")
        self.lif2 = neuron.LIFNode(step_mode="m", detach_reset=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.lif2(self.bn2(self.fc2(self.lif1(self.bn1(self.fc1(x))))))


class FlatNetwork(nn.Module):
    """A user's class whose blocks know no frame; it declares them from last to first."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = layer.Conv2d(2, width, 4, stride=4, step_mode="m")
        self.stem_bn = layer.BatchNorm2d(width, step_mode="m")
        self.stem_lif = neuron.LIFNode(step_mode="m", detach_reset=True)
        self.later = nn.ModuleList([Flat(width)])
        self.sooner = nn.ModuleList([Flat(width)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_lif(self.stem_bn(self.stem(x))).flatten(3)
        for block in (*self.sooner, *self.later):
            x = block(x)
        return self.head(x.mean(3))


def flat(wrap: Callable[..., Checkpoint], criterion: TokenCriterion, kept: tuple[int, int] = (9, 5)) -> Checkpoint:
    checkpoint = wrap(FlatNetwork(), family="user:FlatNetwork", shape=(2, 16, 16))
    reductions = tuple(
        TokenReduction(
            block=name, grid=(4, 4), channels=16, kept=count, criterion=criterion, rest="skip", currents=False
        )
        for name, count in zip(("sooner.0", "later.0"), kept, strict=True)
    )
    reduce_tokens(checkpoint.model, reductions)
    liven(checkpoint.model, images(checkpoint))
    return replace(checkpoint, spec=replace(checkpoint.spec, tokens=reductions))


@pytest.mark.parametrize("criterion", ["difference", pytest.param("learned", marks=pytest.mark.slow)])
def test_blocks_that_know_no_frame_leave_out_tokens_and_are_named_by_execution(
    wrap: Callable[..., Checkpoint], tmp_path: Path, criterion: TokenCriterion
) -> None:
    checkpoint = flat(wrap, criterion)
    export_onnx(checkpoint, tmp_path / "model.onnx")
    assert_proven(checkpoint, tmp_path / "model.onnx", layers=5)
    model = onnx.load(tmp_path / "model.onnx")
    for block, kept in (("sooner.0", 9), ("later.0", 5)):
        assert constant(model, node_of(model, f"{block}.tokens.top").input[1]).tolist() == [kept]


def test_one_token_of_one_step_is_chosen_and_put_back(wrap: Callable[..., Checkpoint], tmp_path: Path) -> None:
    checkpoint = flat(wrap, "difference", kept=(1, 16))
    checkpoint = replace(checkpoint, spec=replace(checkpoint.spec, timesteps=1))
    export_onnx(checkpoint, tmp_path / "model.onnx")
    assert_proven(checkpoint, tmp_path / "model.onnx", layers=5)
