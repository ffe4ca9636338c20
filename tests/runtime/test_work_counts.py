"""What kernels do, counted by formula, against the same counted one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest

from benchmarks.cost_grid import GridLayer, layer_graph
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.lists import ListSpec, Search
from svitkit.runtime.lowering.rules import lower
from svitkit.runtime.program import Chosen
from svitkit.runtime.work_counts import expected_groups, list_counts, mean_taps
from tests.runtime.playing import COSTS_HERE, SMALL


@pytest.mark.parametrize(
    ("extents", "kernel", "stride", "padding"),
    [((5, 4), (3, 3), (1, 1), (1, 1)), ((6, 5), (3, 2), (2, 2), (1, 0)), ((1,), (3,), (1,), (1,))],
)
def test_taps_inside_the_image_are_counted_exactly(
    extents: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    window = Window(extents, kernel, stride, padding)
    geometry = list(zip(extents, kernel, stride, padding, strict=True))
    out = tuple((extent + 2 * pad - size) // step + 1 for extent, size, step, pad in geometry)
    inside = 0
    for position in product(*map(range, out)):
        for tap in product(*map(range, kernel)):
            at = [p * s + k - pad for p, s, k, pad in zip(position, stride, tap, padding, strict=True)]
            inside += all(0 <= index < extent for index, extent in zip(at, extents, strict=True))
    assert mean_taps(window, out) == pytest.approx(inside / prod(out))


@pytest.mark.parametrize("group", [1, 2, 16])
@pytest.mark.parametrize("entries", [20.0, 60.0])
def test_groups_are_those_of_random_lists(group: int, entries: float) -> None:
    drawn = np.random.default_rng(0).binomial(400, entries / 400, 20000)
    assert expected_groups(entries, group) == pytest.approx(np.ceil(drawn / group).mean(), rel=0.05)


@pytest.mark.parametrize(("search", "searches", "tail"), [("compress", 3 + 1 + 1, 4), ("table", 15, 4)])
def test_lists_are_searched_in_pieces_that_shrink(search: Search, searches: int, tail: int) -> None:
    spec = ListSpec((2, 3), (372, 124), 0, 744, inputs=124, chunk=124, digits=2, group=1, search=search)
    counts = {"call": 1, "list.list": 12, f"list.{search}": 12 * searches, "list.tail": 12 * tail}
    assert list_counts(spec) == counts


def test_empty_lists_have_no_groups() -> None:
    assert expected_groups(0.0, 16) == 0


def chosen(layer: GridLayer, rate: float, prefer: str) -> dict[str, Chosen]:
    program = lower(layer_graph(layer, rate), unit=SMALL, costs=COSTS_HERE, parts=1, prefer=prefer)
    return {each.kernel: each for each in program.kernels}


def test_rows_are_counted_by_the_active_inputs_and_dense_work_by_all() -> None:
    layer = GridLayer(kind="fp32", inputs=16, outputs=24, side=2, kernel=1)
    rows = {rate: chosen(layer, rate, "rows")["event_matmul_lif"].counts for rate in (0.25, 0.5)}
    panels, lists = 24 // SMALL.float_lanes, 4 * 4  # of four positions and four time steps
    assert rows[0.25]["rows_fp32.turn"] == pytest.approx(lists * 16 * 0.25 * panels)
    assert rows[0.5]["rows_fp32.turn"] == pytest.approx(2 * rows[0.25]["rows_fp32.turn"])
    assert rows[0.5]["rows.list"] == rows[0.25]["rows.list"] == lists * panels
    dense = {rate: chosen(layer, rate, "dense")["dense_matmul_lif"].counts for rate in (0.25, 0.5)}
    assert dense[0.25] == dense[0.5]
    assert dense[0.25]["dense_fp32.input"] == lists * 16 * panels


def test_every_digit_of_a_count_has_its_list() -> None:
    single = chosen(GridLayer(kind="fp32", inputs=16, outputs=24, side=2, kernel=1), 0.5, "rows")
    counted = chosen(GridLayer(kind="fp32", inputs=16, outputs=24, side=2, kernel=1, copies=3), 0.5, "rows")
    assert counted["list"].counts["list.list"] == 2 * single["list"].counts["list.list"]
    # 1 and 3 of three spikes are odd: 3/8 + 1/8; 2 and 3 have the second digit: 3/8 + 1/8
    assert counted["event_matmul_lif"].counts["rows_fp32.turn"] == pytest.approx(
        2 * single["event_matmul_lif"].counts["rows_fp32.turn"]
    )


def test_convolutions_join_the_lists_of_every_tap() -> None:
    layer = GridLayer(kind="int8", inputs=16, outputs=24, side=3, kernel=3)
    counts = chosen(layer, 0.5, "rows")["event_int8_conv_lif"].counts
    assert counts["rows.join"] == 9 * 4 * 9
    assert "rows.join" not in chosen(replace(layer, kernel=1), 0.5, "rows")["event_int8_matmul_lif"].counts
