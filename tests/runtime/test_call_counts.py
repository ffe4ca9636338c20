"""The work of kernels that are no linear layers, counted by formula against counts by hand."""

from __future__ import annotations

import pytest

from svitkit.errors import UnsupportedError
from svitkit.lif import LIFParams
from svitkit.runtime.call_counts import call_counts
from svitkit.runtime.kernels.attention import AttentionSpec, Rows
from svitkit.runtime.kernels.contract import ContractSpec
from svitkit.runtime.kernels.grouped import GroupedSpec
from svitkit.runtime.kernels.linear import Window
from svitkit.runtime.kernels.neurons import NeuronSpec
from svitkit.runtime.kernels.pointwise import ElementwiseSpec, Operand, QuantizeSpec, ReduceSpec
from svitkit.runtime.kernels.pool import PoolNeuronSpec, PoolSpec
from svitkit.runtime.work_counts import Memory

MEMORY = Memory(register_bytes=64, l1_bytes=32768, l2_bytes=1 << 20)


def operand(strides: tuple[int, ...], dtype: str = "float32") -> Operand:
    return Operand(strides, 0, 4096, dtype)


def neurons(width: int, stride: int = 1) -> NeuronSpec:
    where = operand((width * stride, stride))
    return NeuronSpec((3, width), 4, where, 3 * width, where, 3 * width, 1.0, LIFParams(), False)


def pooling(channels: int, dtype: str) -> PoolSpec:
    return PoolSpec(
        window=Window((4, 4), (2, 2), (2, 2), (0, 0)),
        out_extents=(2, 2),
        outer=(5,),
        channels=channels,
        in_strides=(4 * channels, channels),
        in_outer=(16 * channels,),
        in_channel=1,
        in_offset=0,
        in_elements=80 * channels,
        out_strides=(2 * channels, channels),
        out_outer=(4 * channels,),
        out_elements=20 * channels,
        dtype=dtype,
    )


def attention(width: int) -> AttentionSpec:
    rows = Rows(head=width, time=64 * width, token=2 * width, offset=0, elements=4096)
    return AttentionSpec(
        heads=2,
        timesteps=3,
        queries=9,
        keys=9,
        depth=6,
        width=width,
        q=rows,
        k=rows,
        v=rows,
        v_limit=1,
        out=rows,
        potential=(width, 2 * width),
        scale=0.125,
        params=LIFParams(),
        keeps_state=False,
        parts=1,
    )


def test_neurons_take_a_register_for_16_floats_and_a_whole_one_for_what_is_left() -> None:
    # 40 channels: a panel of 32, two registers, and one of 8, one register
    assert call_counts(neurons(40), MEMORY) == {"call": 1, "lif.vector": 3 * 2, "lif.step": 3 * 3 * 4}


def test_neurons_that_lie_apart_are_worked_on_one_by_one() -> None:
    assert call_counts(neurons(40, stride=2), MEMORY)["lif.step"] == 3 * 40 * 4


@pytest.mark.parametrize(("dtype", "registers"), [("float32", 3), ("uint8", 2)])
def test_pooling_looks_at_every_position_under_the_window(dtype: str, registers: int) -> None:
    assert call_counts(pooling(40, dtype), MEMORY) == {"call": 1, "pool.tap": 4 * 5 * 4 * registers}


def test_neurons_behind_a_pooling_are_counted_beside_it() -> None:
    spec = PoolNeuronSpec(pooling(48, "int16"), True, LIFParams(), False)
    # panels of 48: 32 and 16 channels of int16 are a register each, as floats two and one
    assert call_counts(spec, MEMORY) == {"call": 1, "pool.tap": 20 * 4 * 2, "pool.step": 20 * 3}


def test_attention_adds_rows_of_tables_of_keys_and_of_queries() -> None:
    tables, keys, queries = 16 * (3 + 2), 3 * 6, 2 * 9  # groups of four: 3 of keys, 2 of channels
    rows = 2 * 3 * (tables + keys + queries)
    assert call_counts(attention(32), MEMORY) == {"call": 1, "attention.row": rows, "attention.vector": 0}
    assert call_counts(attention(24), MEMORY)["attention.vector"] == 2 * rows  # three vectors of 8
    assert call_counts(attention(11), MEMORY) == {"call": 1, "attention.row": rows, "attention.apart": rows}


def test_a_plain_loop_is_whole_vectors_and_what_is_left() -> None:
    dense, counts = operand((70, 1), "uint8"), operand((0, 1), "uint8")
    add = ElementwiseSpec("add", (5, 70), (dense, counts), None, dense)
    assert call_counts(add, MEMORY) == {"call": 1, "stream.vector": 5 * 2, "stream.tail": 5 * 6}
    quantize = QuantizeSpec((5, 70), operand((70, 1)), 0.5, 3, dense)
    assert call_counts(quantize, MEMORY) == {"call": 1, "stream.vector": 5 * 8, "stream.tail": 5 * 6}
    apart = ElementwiseSpec("copy", (5, 70), (operand((1, 5)),), None, operand((70, 1)))
    assert call_counts(apart, MEMORY) == {"call": 1, "stream.vector": 0, "stream.tail": 350}


def grouped(groups: int, inputs: int, outputs: int) -> GroupedSpec:
    width = groups * outputs
    return GroupedSpec(
        window=Window((4, 4), (2, 2), (2, 2), (0, 0)),
        out_extents=(2, 2),
        outer=(5,),
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        in_strides=(4, 1),
        in_outer=(16,),
        in_channel=1,
        in_offset=0,
        in_elements=80,
        in_dtype="float32",
        out_strides=(2 * width, width),
        out_outer=(4 * width,),
        out_elements=20 * width,
        dtype="float32",
        has_bias=False,
    )


def test_grouped_convolutions_fill_registers_within_a_group_and_depthwise_ones_across_groups() -> None:
    assert call_counts(grouped(40, 1, 1), MEMORY) == {"call": 1, "contract.product": 4 * 5 * 4 * 3}
    # ten channels: panels of 8 and 2
    assert call_counts(grouped(4, 6, 10), MEMORY) == {"call": 1, "contract.product": 4 * 5 * 4 * 6 * 4 * 2}


def test_sums_and_products_count_every_addition_of_a_register() -> None:
    mean = ReduceSpec((4, 96), (7, 7), operand((96, 1), "uint8"), (672, 96), 49, operand((96, 1)))
    assert call_counts(mean, MEMORY) == {"call": 1, "reduce.sum": 4 * 6 * 49}
    product = ContractSpec((2, 16), (8,), operand((1, 0)), (2,), operand((0, 1)), (16,), operand((16, 1)))
    assert call_counts(product, MEMORY) == {"call": 1, "contract.product": 2 * 8}


def test_a_kernel_that_nobody_counted_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"shaped by str.*call_counts"):
        call_counts("what", MEMORY)
