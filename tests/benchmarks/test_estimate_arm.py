"""The estimate for Arm cores: assembly, counters, cycles and the dense bound, by hand; the whole on a small network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import estimate_arm
from benchmarks.assembly import AARCH64, ISAS, Loop, innermost_loops, loops, nesting, read_assembly
from benchmarks.block_counts import Counted
from benchmarks.cycles import Cost, Pipeline, function_cost, mispredictions, pieces
from benchmarks.dense_bound import layer_macs
from benchmarks.estimate_arm import CallCost, by_kernel, by_layer, functions_of_calls
from benchmarks.mca import Timing, analyse, dispatch_cycles, find_mca
from svitkit.errors import ConfigError, SvitError, VerificationError

# sum over i < n and k < m of 1, where n >= 1 and m may be 0; as LLVM prints functions
LISTING = """\
	.text
	.globl	nested
	.type	nested,@function
nested:                                 // @nested
.Lfunc_begin0:
	.loc	1 0 0
	mov	x8, #0
	mov	x9, x0
.Ltmp1:
	tbnz	w1, #31, .LBB0_5
.LBB0_1:                                // outer
	mov	x10, x1
	cbz	x10, .LBB0_4
.LBB0_2:                                // inner
	add	x8, x8, #1
	subs	x10, x10, #1
	b.ne	.LBB0_2
.LBB0_4:
	subs	x9, x9, #1
	b.ne	.LBB0_1
.LBB0_5:
	mov	x0, x8
	ret
.Lfunc_end0:
	.size	nested, .Lfunc_end0-nested
"""
MAIN = """\
#include <stdint.h>
#include <stdio.h>
extern __attribute__((visibility("hidden"))) struct { const uint64_t* counts; uint64_t number; } svit_table;
long nested(long n, long m);
int main(void) {
  printf("%ld", nested(3, 5));
  for (uint64_t i = 0; i < svit_table.number; ++i) printf(" %lu", (unsigned long)svit_table.counts[i]);
}
"""
QEMU = shutil.which("qemu-aarch64-static")
KEYS = {
    "svitkit_cycles",
    "dense_fp32_bound_cycles",
    "dense_int8_bound_cycles",
    "covered_share",
    "is_estimate",
    "kernels",
    "layers",
}


def has_mca() -> bool:
    try:
        return bool(find_mca())
    except ConfigError:
        return False


needs_mca = pytest.mark.skipif(not has_mca(), reason="no llvm-mca: run scripts/install_mca")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="no qemu: run scripts/install_emulator")


def nested_counts(n: float, m: float) -> dict[int, float]:
    """Counters of the listing by hand, in the order in which its text comes upon them."""
    # entry; past the sign test; outer block; past cbz (the same place enters the inner loop); inner; its end; end of
    # the outer loop; its end; the last block
    return dict(enumerate([1, 1, n, n, n * m, n, n, 1, 1]))


def test_blocks_end_at_branches_and_begin_at_labels_that_are_branched_to() -> None:
    (function,) = read_assembly(LISTING, AARCH64).functions
    assert function.name == "nested"
    assert [len(block.instructions) for block in function.blocks] == [3, 2, 3, 2, 2]
    assert [block.labels for block in function.blocks] == [(), (".LBB0_1",), (".LBB0_2",), (".LBB0_4",), (".LBB0_5",)]
    assert [block.target for block in function.blocks] == [".LBB0_5", ".LBB0_4", ".LBB0_2", ".LBB0_1", None]


def test_loops_are_backward_branches_and_the_innermost_hold_no_other() -> None:
    (function,) = read_assembly(LISTING, AARCH64).functions
    assert loops(function) == [Loop(first=1, last=3), Loop(first=2, last=2)]
    assert innermost_loops(function) == [Loop(first=2, last=2)]
    assert list(nesting(function).values()) == [0, 1, 2, 1, 0]


def test_branches_to_one_label_are_one_loop() -> None:
    text = LISTING.replace("\tadd\tx8, x8, #1\n", "\tadd\tx8, x8, #1\n\tcbz\tx8, .LBB0_2\n")
    (function,) = read_assembly(text, AARCH64).functions
    assert loops(function)[1] == Loop(first=2, last=3)


@pytest.mark.slow
@needs_qemu
def test_counters_of_the_running_code_are_those_by_hand(tmp_path: Path) -> None:
    assembly = read_assembly(LISTING, AARCH64)
    (tmp_path / "code.s").write_text(assembly.counting)
    (tmp_path / "main.c").write_text(MAIN)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static", "-o", "program"]
    subprocess.run([*command, "code.s", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run([str(QEMU), "./program"], cwd=tmp_path, check=True, capture_output=True, text=True)
    result, *counts = map(int, done.stdout.split())
    assert result == 15
    assert counts == list(nested_counts(3, 5).values())


def test_a_loop_costs_its_turns_and_the_rest_is_taken_alone() -> None:
    (function,) = read_assembly(LISTING, AARCH64).functions
    counts = nested_counts(3, 5)
    found = {len(piece.code): piece for piece in pieces(function, counts, AARCH64) if piece.in_loop}
    assert [(piece.runs, piece.entries) for piece in found.values()] == [(15, 3)]

    def timing(code: tuple[str, ...]) -> Timing:
        return Timing(steady=len(code), once=len(code) + 10, bound="unit A")

    quick = Pipeline(penalty_cycles=100, in_order=False)
    cost = function_cost(function, (counts, ()), AARCH64, timing, quick)
    # blocks of 3, 2, 3, 2 and 1 instructions (the return is free) run 1, 3, 15, 3 and 1 times
    assert cost.instructions == 3 + 6 + 45 + 6 + 1
    assert cost.low_cycles == cost.cycles == 61
    # ten cycles more for each of 1 + 3 + 3 + 1 blocks and 3 entries
    assert cost.high_cycles == 61 + 110
    assert cost.loop_instructions == 45
    assert cost.bound == "unit A"
    slow = Pipeline(penalty_cycles=100, in_order=True)
    assert function_cost(function, (counts, ()), AARCH64, timing, slow).cycles == 61 + 110


def test_branches_are_missed_if_spikes_decide_them_or_their_loop_is_long() -> None:
    (function,) = read_assembly(LISTING, AARCH64).functions
    inner = function.blocks[2]
    assert mispredictions(function, nested_counts(3, 5), ()) == 0
    assert mispredictions(function, nested_counts(3, 5), {inner.counter}) == 3
    assert mispredictions(function, nested_counts(3, 200), ()) == 3


def test_a_front_end_does_not_split_instructions() -> None:
    assert dispatch_cycles([2, 2, 1], 3) == 2
    assert dispatch_cycles([1, 1, 1, 1], 3) == 2
    assert dispatch_cycles([7], 3) == 3


@needs_mca
def test_llvm_mca_times_a_chain_by_its_latency_and_independent_code_by_its_unit() -> None:
    chain = ("fadd v0.4s, v0.4s, v1.4s",)
    wide = tuple(f"fmla v{n}.4s, v30.4s, v31.4s" for n in range(16))
    timings = analyse([chain, wide], triple="aarch64-linux-gnu", mcpu="cortex-a72", comment="//")
    assert timings[chain].steady == 5
    assert timings[chain].bound == "chain of results"
    assert timings[wide].steady == 16  # 4 lanes a cycle: what the dense fp32 bound says
    assert timings[wide].once > timings[wide].steady


def tiny_graph(path: Path) -> None:
    """A convolution of one image shown at 4 time steps, and a product that a node 'fire' follows."""
    make = onnx.helper
    shape = np.array([4, 3, 8, 8], np.int64)
    constants = [
        onnx.numpy_helper.from_array(shape, "shape"),
        onnx.numpy_helper.from_array(np.zeros((5, 3, 3, 3), np.float32), "kernel"),
        onnx.numpy_helper.from_array(np.zeros((8, 7), np.float32), "matrix"),
    ]
    nodes = [
        make.make_node("Expand", ["x", "shape"], ["frames"], "repeat"),
        make.make_node("Conv", ["frames", "kernel"], ["map"], "stem", pads=[1, 1, 1, 1]),
        make.make_node("MatMul", ["map", "matrix"], ["currents"], "product"),
        make.make_node("Relu", ["currents"], ["spikes"], "fire"),
    ]
    value = make.make_tensor_value_info
    inputs, outputs = [value("x", 1, [1, 3, 8, 8])], [value("spikes", 1, [4, 5, 8, 7])]
    onnx.save(make.make_model(make.make_graph(nodes, "tiny", inputs, outputs, constants)), path)


def test_the_dense_bound_counts_an_image_that_is_repeated_once(tmp_path: Path) -> None:
    tiny_graph(tmp_path / "tiny.onnx")
    macs = layer_macs(tmp_path / "tiny.onnx", ["stem", "fire"])
    assert macs == {"stem": 5 * 8 * 8 * 3 * 9, "fire": 4 * 5 * 8 * 7 * 8}


def test_an_unknown_core_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    prepared = estimate_arm.Prepared(onnx=path, dense=path, inputs=np.zeros((1, 1), np.float32), mean_rate=0.5)
    with pytest.raises(SvitError, match="cortex-a999"):
        estimate_arm.estimate(prepared, "cortex-a999")


def test_every_board_core_has_a_model_and_a_dense_unit() -> None:
    assert set(estimate_arm.CORES) == {*estimate_arm.UNITS, "host"}
    assert {estimate_arm.board_for(core).triple for core in estimate_arm.UNITS} == {"aarch64-linux-gnu"} <= set(ISAS)


def test_the_dense_bound_of_integer_weights_is_that_of_float_weights(tiny: str, tmp_path: Path) -> None:
    macs = {}
    for precision in ("fp32", "int8", "int4"):
        prepared = estimate_arm.prepare(tiny, 0.15, 1, precision, tmp_path)
        macs[precision] = layer_macs(prepared.dense, [])
        operators = {node.op_type for node in onnx.load(prepared.onnx).graph.node}
        assert ("ConvInteger" in operators) == (precision != "fp32")
    assert macs["fp32"] == macs["int8"] == macs["int4"]
    assert prepared.inputs.shape == (1, 1, 3, 16, 16)
    assert prepared.mean_rate == pytest.approx(0.15, abs=0.02)


def test_calls_are_summed_by_layer_and_by_kind_of_kernel() -> None:
    costs = [
        CallCost(layer="a", kernel="list", cost=Cost(cycles=10, instructions=5)),
        CallCost(layer="b", kernel="event", cost=Cost(cycles=50, instructions=20, bound="unit V", bound_cycles=9)),
        CallCost(layer="b", kernel="event", cost=Cost(cycles=30, instructions=10, bound="front end", bound_cycles=8)),
        CallCost(layer="b", kernel="list", cost=Cost(cycles=10, instructions=5)),
    ]
    layers = by_layer(costs)
    assert {layer: (names, cost.cycles) for layer, (names, cost) in layers.items()} == {
        "a": (["list"], 10),
        "b": (["event", "event", "list"], 90),
    }
    events, lists = by_kernel(costs)
    assert (events.kernel, events.calls, events.svitkit_cycles, events.share) == ("event", 2, 80, 0.8)
    assert (events.instructions, events.bound_by) == (30, "unit V")
    assert (lists.kernel, lists.calls, lists.share) == ("list", 2, 0.2)


def test_a_function_that_ran_and_belongs_to_no_call_is_an_error() -> None:
    @dataclass
    class Played:
        calls: tuple[int, ...] = ()

    @dataclass
    class Compiled:
        program: Played

    assembly = read_assembly(LISTING, AARCH64)
    never = dict.fromkeys(range(assembly.counters), 0.0)
    counted = Counted(compiled=Compiled(Played()), assembly=assembly, counts=never, varying=frozenset())  # type: ignore[arg-type]
    assert functions_of_calls(counted) == {}
    with pytest.raises(VerificationError, match="nested"):
        functions_of_calls(replace(counted, counts=nested_counts(3, 5)))


def test_an_unknown_precision_is_an_error_that_names_all(tmp_path: Path) -> None:
    with pytest.raises(SvitError, match="int4"):
        estimate_arm.prepare("qkformer", 0.15, 1, "int3", tmp_path)


@needs_mca
@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_json_of_a_small_network_holds_estimates_and_bounds(
    tiny: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    totals = {}
    for rate in (0.05, 0.4):
        estimate_arm.main(tiny, rate, "cortex-a72", precision, 2, True)
        result = json.loads(capsys.readouterr().out)
        assert set(result) >= KEYS
        assert result["is_estimate"] is True
        assert result["precision"] == precision
        assert result["svitkit_low_cycles"] <= result["svitkit_cycles"] <= result["svitkit_high_cycles"]
        for parts in ("layers", "kernels"):
            assert sum(part["svitkit_cycles"] for part in result[parts]) == pytest.approx(result["svitkit_cycles"])
        assert result["macs"] == pytest.approx(4 * result["dense_fp32_bound_cycles"])
        totals[rate] = result["svitkit_cycles"]
    assert totals[0.05] < totals[0.4]
