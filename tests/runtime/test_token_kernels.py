"""Kernels that score tokens, choose the best, take them out and put them back, against numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams, lif
from svitkit.runtime.import_onnx import Graph, Node
from tests.models import token_reference
from tests.runtime.playing import Array, Player, graph, node

CRITERIA = ("difference", "activity")
EVERY = LIFParams(tau=2.0)


def counts(shape: tuple[int, ...], *, highest: int = 3) -> Array:
    return np.random.default_rng(sum(shape)).integers(0, highest + 1, shape).astype(np.float32)


def top(values: str, index: str, *, k: str = "k", **attributes: Any) -> Node:
    return Node("TopK", index, (values, k), (f"{index}.values", index), {"axis": -1, **attributes})


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    ("channels", "grid", "steps"),
    [(1, (1, 1), 1), (7, (1, 5), 2), (33, (7, 7), 1), (100, (5, 3), 3), (2, (4, 1), 4)],
    ids=str,
)
def test_scores_of_counts_are_those_of_the_definition(
    channels: int, grid: tuple[int, int], steps: int, criterion: str
) -> None:
    x = counts((steps, 1, channels, *grid))
    wanted = token_reference.score(x[:, 0], criterion)
    nodes = [node("Score", "input", "logits", criterion=criterion)]
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(1, wanted.size), constants={}))
    np.testing.assert_array_equal(player.run(x), wanted)
    assert player.kernels()[0] == "score_tokens"


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("channels", [7, 33])
def test_scores_of_spikes_that_lie_in_another_order_are_those_of_the_definition(channels: int, criterion: str) -> None:
    steps, height, width = 3, 5, 4
    x = np.random.default_rng(0).normal(1.0, 2.0, (steps, 1, height, width, channels)).astype(np.float32)
    nodes = [
        node("LIF", "input zero", "s", params=EVERY),
        node("Transpose", "s", "frames", perm=[0, 1, 4, 2, 3]),
        node("Score", "frames", "logits", criterion=criterion),
    ]
    constants = {"zero": np.float32(0)}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(1, height * width), constants=constants))
    spikes = lif(x, EVERY)[0][:, 0].transpose(0, 3, 1, 2)
    assert 0.1 < spikes.mean() < 0.9
    np.testing.assert_array_equal(player.run(x), token_reference.score(spikes, criterion))


def test_a_frame_cut_out_of_channels_is_scored_where_it_lies() -> None:
    x = counts((2, 1, 6, 4, 4))
    nodes = [
        node("Slice", "input from to axis", "some"),
        node("Score", "some", "logits", criterion="difference"),
    ]
    constants = {"from": np.array([1]), "to": np.array([5]), "axis": np.array([2])}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(1, 16), constants=constants))
    np.testing.assert_array_equal(player.run(x), token_reference.score(x[:, 0, 1:5], "difference"))


def test_a_row_of_tokens_that_lie_apart_is_scored_as_if_they_lay_together() -> None:
    x = counts((2, 1, 3, 4, 5))
    nodes = [
        node("Slice", "input from to axis", "some"),
        node("Reshape", "some row", "line"),
        node("Score", "line", "logits", criterion="difference"),
    ]
    constants = {"from": np.array([1]), "to": np.array([4]), "axis": np.array([4]), "row": np.array([2, 1, 3, 1, 12])}
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(1, 12), constants=constants))
    wanted = token_reference.score(x[:, 0, :, :, 1:4].reshape(2, 3, 1, 12), "difference")
    np.testing.assert_array_equal(player.run(x), wanted)


@pytest.mark.parametrize(("tokens", "kept"), [(1, 1), (5, 2), (49, 49), (49, 1), (100, 37)])
def test_the_highest_scores_come_first_and_of_equals_the_lower_number(tokens: int, kept: int) -> None:
    scores = counts((1, tokens), highest=4) - 2
    nodes = [top("input", "logits")]
    constants = {"k": np.array([kept])}
    player = Player(graph(nodes, input_shape=scores.shape, output_shape=(1, kept), constants=constants))
    assert player.run(scores).tolist() == token_reference.top(scores[0].astype(np.int64), kept)
    assert player.kernels()[0] == "top_tokens"


def test_real_scores_that_hardly_differ_are_told_apart() -> None:
    scores = (1 + np.array([[3, 1, 2, 0, 4]]) * np.finfo(np.float32).eps).astype(np.float32)
    player = Player(
        graph([top("input", "logits")], input_shape=(1, 5), output_shape=(1, 3), constants={"k": np.array([3])})
    )
    assert player.run(scores).tolist() == [4, 0, 2]


def pattern(kept: int, tokens: int, *, source: str = "input", factor: str = "ten") -> list[Node]:
    """Score, take, compute and put back, as ``svitkit export`` writes it; (T, 1, C, H, W) stands in ``source``."""
    return [
        node("Score", source, "score", criterion="difference"),
        top("score", "index"),
        node("Squeeze", "index first", "numbers"),
        node("Reshape", f"{source} row", "whole"),
        node("Gather", "whole numbers", "taken", axis=3),
        node("Mul", f"taken {factor}", "computed"),
        Node("ScatterElements", "places", ("behind", "numbers", "ahead"), ("places",), {"axis": 0}),
        node("Concat", "computed whole", "both", axis=3),
        node("Gather", "both places", "logits", axis=3),
    ]


def pattern_constants(kept: int, x_shape: Sequence[int]) -> dict[str, Array]:
    steps, batch, channels, height, width = x_shape
    return {
        "k": np.array([kept]),
        "first": np.array([0]),
        "row": np.array([steps, batch, channels, height * width]),
        "ten": np.float32(10),
        "behind": np.arange(kept, kept + height * width),
        "ahead": np.arange(kept),
        "zero": np.float32(0),
    }


def put_back(frames: Array, kept: int) -> Array:
    """What the pattern computes of (T, C, H, W)."""
    chosen = token_reference.top(token_reference.score(frames, "difference"), kept)
    whole = frames.reshape(*frames.shape[:2], -1).copy()
    whole[..., chosen] *= 10
    return whole


@pytest.mark.parametrize(
    ("channels", "grid", "kept"),
    [(1, (1, 1), 1), (7, (1, 5), 2), (33, (7, 7), 24), (100, (7, 7), 1), (7, (7, 7), 49)],
    ids=str,
)
def test_tokens_are_computed_and_put_back_in_their_places(channels: int, grid: tuple[int, int], kept: int) -> None:
    x = counts((2, 1, channels, *grid)) + 1
    tokens = grid[0] * grid[1]
    nodes, constants = pattern(kept, tokens), pattern_constants(kept, x.shape)
    player = Player(graph(nodes, input_shape=x.shape, output_shape=(2, 1, channels, tokens), constants=constants))
    wanted = put_back(x[:, 0], kept)
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)
    names = ["score_tokens", "top_tokens", "take_tokens", "token_places", "put_tokens"]
    assert [name for name in player.kernels() if "token" in name] == names


@pytest.mark.parametrize("channels", [7, 33])
def test_bytes_in_another_order_are_computed_as_real_numbers_and_put_back(channels: int) -> None:
    steps, height, width, kept = 3, 5, 4, 9
    x = np.random.default_rng(0).normal(1.0, 2.0, (steps, 1, height, width, channels)).astype(np.float32)
    nodes = [
        node("LIF", "input zero", "s", params=EVERY),
        node("Transpose", "s", "frames", perm=[0, 1, 4, 2, 3]),
        *pattern(kept, height * width, source="frames"),
    ]
    shape = (steps, 1, channels, height, width)
    constants = pattern_constants(kept, shape)
    player = Player(
        graph(nodes, input_shape=x.shape, output_shape=(steps, 1, channels, height * width), constants=constants)
    )
    wanted = put_back(lif(x, EVERY)[0][:, 0].transpose(0, 3, 1, 2), kept)
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)


@pytest.mark.parametrize(("axis", "numbers"), [(3, [0]), (3, [4, 1, 1, 3]), (2, [6, 0]), (3, [2, 3, 4])])
def test_tokens_of_constant_numbers_are_taken_out(axis: int, numbers: list[int]) -> None:
    x = counts((2, 1, 7, 5))
    wanted = x.take(numbers, axis)
    nodes = [node("Gather", "input numbers", "logits", axis=axis)]
    player = Player(
        graph(nodes, input_shape=x.shape, output_shape=wanted.shape, constants={"numbers": np.array(numbers)})
    )
    np.testing.assert_array_equal(player.run(x).reshape(wanted.shape), wanted)


def refused(nodes: Sequence[Node], constants: dict[str, Array], x_shape: tuple[int, ...] = (2, 1, 3, 2, 3)) -> Graph:
    return graph(nodes, input_shape=x_shape, output_shape=(2, 1, 3, 6), constants=constants)


def changed(nodes: Sequence[Node], name: str, **fields: Any) -> list[Node]:
    """Nodes of which the one of that name is another."""
    return [
        Node(**{**{key: getattr(each, key) for key in ("op", "name", "inputs", "outputs", "attributes")}, **fields})
        if each.name == name
        else each
        for each in nodes
    ]


NODES, CONSTANTS = pattern(2, 6), pattern_constants(2, (2, 1, 3, 2, 3))
FOREIGN: dict[str, tuple[list[Node], dict[str, Array], str]] = {
    "places of other numbers": (NODES, {"behind": np.arange(6)}, "ScatterElements is known for the places of tokens"),
    "places in another order": (NODES, {"ahead": np.array([1, 0])}, "ScatterElements is known for the places"),
    "places that are added": (
        changed(NODES, "places", attributes={"axis": 0, "reduction": b"add"}),
        {},
        "ScatterElements is known for the places",
    ),
    "places of constant numbers": (
        changed(NODES, "places", inputs=("behind", "fixed", "ahead")),
        {"fixed": np.array([0, 99])},
        "numbers of tokens must come from a TopK",
    ),
    "the lowest instead of the highest": (
        changed(NODES, "index", attributes={"axis": -1, "largest": 0}),
        {},
        "only the numbers of one row's largest are known",
    ),
    "in no order": (
        changed(NODES, "index", attributes={"axis": -1, "sorted": 0}),
        {},
        "only the numbers of one row's largest are known",
    ),
    "the highest of a column": (
        changed(NODES, "index", attributes={"axis": 0}),
        {},
        "only the numbers of one row's largest are known",
    ),
    "more than there are": (NODES, {"k": np.array([7])}, "only the numbers of one row's largest are known"),
    "none at all": (NODES, {"k": np.array([0])}, "only the numbers of one row's largest are known"),
    "as many as the input says": (
        changed(NODES, "index", inputs=("score", "input")),
        {},
        "only the numbers of one row's largest are known",
    ),
    "the scores themselves": (
        changed(NODES, "computed", inputs=("taken", "index.values")),
        {},
        "only the numbers of one row's largest are known",
    ),
    "scores for numbers": (
        changed(NODES, "taken", inputs=("whole", "score")),
        {},
        "numbers of tokens must come from a TopK",
    ),
    "real values for numbers": (
        changed(NODES, "taken", inputs=("whole", "whole")),
        {},
        "numbers of tokens must come from a TopK",
    ),
    "numbers of more tokens than there are": (
        changed(NODES, "taken", inputs=("input", "numbers"), attributes={"axis": 3}),
        {},
        "numbers of tokens must come from a TopK over 2 of them",
    ),
    "constant numbers beyond the last token": (
        changed(NODES, "taken", inputs=("whole", "fixed")),
        {"fixed": np.array([0, 6])},
        "must be a vector of 0 to 5",
    ),
    "constant numbers from behind": (
        changed(NODES, "taken", inputs=("whole", "fixed")),
        {"fixed": np.array([0, -1])},
        "must be a vector of 0 to 5",
    ),
    "no constant numbers": (
        changed(NODES, "taken", inputs=("whole", "fixed")),
        {"fixed": np.array([], np.int64)},
        "must be a vector of 0 to 5",
    ),
    "a table of constant numbers": (
        changed(NODES, "taken", inputs=("whole", "fixed")),
        {"fixed": np.array([[0, 1]])},
        "must be a vector of 0 to 5",
    ),
    "fewer places than tokens": (
        changed(NODES, "logits", inputs=("both", "fixed")),
        {"fixed": np.array([0, 1, 2])},
        "3 tokens are put back in the place of 6",
    ),
    "a join that nothing puts back": (
        changed(NODES, "logits", op="Mul", inputs=("both", "ten"), attributes={}),
        {},
        "something else than a Gather of tokens reads it",
    ),
    "a join of three": (
        changed(NODES, "both", inputs=("computed", "whole", "whole")),
        {},
        "Concat is known for computed tokens and all that there were",
    ),
    "a join of channels": (
        changed(NODES, "both", attributes={"axis": 2}),
        {},
        "numbers of tokens must come from a TopK over 6 of them",
    ),
    "fewer numbers than places": (NODES, {"k": np.array([1])}, "has 1 numbers for 2 places"),
    "scores of two inputs": (NODES, {}, "one input at a time"),
    "some of the numbers": (
        changed(NODES, "numbers", op="Slice", inputs=("index", "first", "one", "one")),
        {"one": np.array([1])},
        "numbers of tokens must come from a TopK",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_pattern_that_is_not_svitkits_is_refused(case: str) -> None:
    nodes, constants, says = FOREIGN[case]
    shape = (2, 2, 3, 2, 3) if case == "scores of two inputs" else (2, 1, 3, 2, 3)
    told = {**pattern_constants(2, shape), **constants}
    with pytest.raises(UnsupportedError, match=says):
        Player(refused(nodes, told, shape))


def test_the_pattern_itself_is_taken() -> None:
    x = counts((2, 1, 3, 2, 3))
    wanted = put_back(x[:, 0], 2)
    np.testing.assert_array_equal(Player(refused(NODES, CONSTANTS)).run(x).reshape(wanted.shape), wanted)
