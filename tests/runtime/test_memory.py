from __future__ import annotations

from itertools import pairwise

import numpy as np

from svitkit.runtime.memory import ALIGNMENT, plan_memory
from svitkit.runtime.program import Call, Program, last_uses, to_text, weight_bytes
from svitkit.runtime.view import Buffer


def chain(sizes: list[int]) -> Program:
    """Calls that each read the buffer before and write the next."""
    buffers = [Buffer(f"b{index}", "uint8", (size,)) for index, size in enumerate(sizes)]
    calls = [Call("k", f"layer{index}", pair) for index, pair in enumerate(pairwise(buffers))]
    return Program(buffers[0], buffers[-1], calls=calls)


def test_buffers_that_live_together_never_overlap() -> None:
    rng = np.random.default_rng(0)
    program = chain(rng.integers(1, 5000, 40).tolist())
    plan = plan_memory(program)
    lives = last_uses(program)
    for first, (start, end) in lives.items():
        assert plan.offsets[first] % ALIGNMENT == 0
        assert plan.offsets[first] + first.size_bytes <= plan.workspace_bytes
        for second, (other_start, other_end) in lives.items():
            if first is second or other_start > end or start > other_end:
                continue
            low, high = sorted((first, second), key=lambda buffer: plan.offsets[buffer])
            assert plan.offsets[low] + low.size_bytes <= plan.offsets[high]


def test_a_chain_needs_two_of_its_buffers_at_once_beside_input_and_output() -> None:
    assert plan_memory(chain([64, 6400, 6400, 6400, 6400, 64])).workspace_bytes == 64 + 2 * 6400 + 64


def test_weights_lie_in_the_file_in_the_order_of_use_at_aligned_offsets() -> None:
    program = chain([64, 64])
    first, second = (Buffer(name, "float32", (3,), space="weights") for name in "ab")
    program.calls.append(Call("k", "layer", (first, second)))
    program.weights = {first: b"a" * 12, second: b"b" * 12}
    plan = plan_memory(program)
    assert plan.weights_bytes == 2 * ALIGNMENT
    image = weight_bytes(program, plan)
    assert image[:12] == b"a" * 12
    assert image[ALIGNMENT : ALIGNMENT + 12] == b"b" * 12


def test_program_text_is_the_documented_format() -> None:
    program = chain([64, 32])
    state = Buffer("v", "float32", (2,), space="states")
    program.calls.append(Call("lif_1", "head_lif", (state,), split=True))
    program.states[state] = 0.5
    program.threads = 4
    assert to_text(program, plan_memory(program)) == (
        "svit-program 2\n"
        "sizes weights 0 states 64 workspace 128\n"
        "threads 4\n"
        "tensor 0 b0 uint8 workspace 0 1 64\n"
        "tensor 1 b1 uint8 workspace 64 1 32\n"
        "tensor 2 v float32 states 0 1 2\n"
        "state 2 0.5\n"
        "input 0\n"
        "output 1\n"
        "call k layer0 whole 2 0 1\n"
        "call lif_1 head_lif split 1 2\n"
        "end\n"
    )
