"""Event lists name the active inputs of every digit, in order, whichever way they are searched."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from svitkit.runtime.kernels.lists import ListSpec, Search, build_lists, byte_table

POSITIONS, GROUP = 3, 4


@pytest.mark.parametrize("search", ["compress", "table"])
@pytest.mark.parametrize("inputs", [1, 7, 8, 48, 61, 96])
@pytest.mark.parametrize("digits", [1, 3])
def test_lists_name_the_inputs_whose_digit_is_one(search: Search, inputs: int, digits: int) -> None:
    spec = ListSpec((POSITIONS,), (inputs,), 0, POSITIONS * inputs, inputs, inputs, digits, GROUP, search)
    x = np.random.default_rng(0).integers(0, 1 << digits, (POSITIONS, inputs)).astype(np.uint8)
    x[1] = (1 << digits) - 1
    x[2] = 0
    kernel = tvm.compile(tvm.IRModule({"kernel": build_lists(spec)}), target="llvm").jit()["kernel"]
    index = tvm.runtime.tensor(np.zeros(spec.lists * spec.capacity, np.uint16))
    count = tvm.runtime.tensor(np.zeros(spec.lists, np.int32))
    tables = [tvm.runtime.tensor(byte_table().ravel())] if search == "table" else []
    kernel(tvm.runtime.tensor(x.ravel()), *tables, index, count, 0, 1)
    rows = index.numpy().reshape(POSITIONS, digits, spec.capacity)
    groups = count.numpy().reshape(POSITIONS, digits)
    for position in range(POSITIONS):
        for number in range(digits):
            active = np.flatnonzero(x[position] >> (digits - 1 - number) & 1)
            assert groups[position, number] == -(-len(active) // GROUP)
            listed = rows[position, number, : groups[position, number] * GROUP]
            np.testing.assert_array_equal(listed, [*active, *[inputs] * (len(listed) - len(active))])
