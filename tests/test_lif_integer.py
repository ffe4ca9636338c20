"""Integer neurons against exact rational arithmetic, and against the neurons of real numbers."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from pydantic import ValidationError

from svitkit.lif import LIFParams, lif
from svitkit.lif_integer import (
    CURRENT_FRACTION,
    INT32_MAX,
    LARGEST_FRACTION,
    LARGEST_TAU,
    MEMBRANE_BITS,
    THRESHOLDS,
    IntegerLIF,
    Integers,
    Membrane,
    integer_lif_step,
    why_not_integer,
)
from svitkit.onnx_lif import REAL_LIMIT

FINEST = {16: 14, 8: 7, 4: 3}
KINDS = list(itertools.product((16, 8, 4), (2.0, 4.0), (0.0, None), (True, False)))
every_kind = pytest.mark.parametrize(("bits", "tau", "v_reset", "decay_input"), KINDS)


def layer(bits: int, tau: float, v_reset: float | None, decay_input: bool, *, behind: int | None = None) -> IntegerLIF:
    """Neurons whose threshold is one step above the largest potential; currents have ``behind`` more binary places."""
    fraction = FINEST[bits]
    params = LIFParams(tau=tau, v_threshold=2.0 ** (bits - 1 - fraction), v_reset=v_reset, decay_input=decay_input)
    current_fraction = CURRENT_FRACTION if behind is None else fraction + behind
    membrane = Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]
    return IntegerLIF(params=params, membrane=membrane, current_fraction=current_fraction)


def exact_step(x: int, v: int, neuron: IntegerLIF) -> tuple[bool, int, Fraction]:
    """One neuron in rational numbers: s, V', and what is left of the potential, in steps of the membrane."""
    params, steps = neuron.params, 1 << neuron.membrane.fraction
    current, potential, tau = Fraction(x, 1 << neuron.current_fraction), Fraction(v, steps), Fraction(params.tau)
    drive = current / tau if params.decay_input else current
    h = potential - potential / tau + drive
    threshold = Fraction(params.v_threshold)
    fired = h >= threshold
    left = (h - threshold * fired if params.v_reset is None else h * (not fired)) * steps
    return fired, min(max(floor(left + Fraction(1, 2)), neuron.membrane.low), neuron.membrane.high), left


def inputs(neuron: IntegerLIF) -> tuple[Integers, Integers]:
    """Currents and potentials over the whole range, among them those just below and at the threshold."""
    rng = np.random.default_rng(0)
    low, high = neuron.membrane.low, neuron.membrane.high
    widest = 6 * int(neuron.params.v_threshold * neuron.params.tau * 2**neuron.current_fraction)
    v = np.concatenate([rng.integers(low, high + 1, 300), [low, high, low, high, 0, 0, 0, 0]])
    fires = neuron.threshold // neuron.gain
    x = np.concatenate([rng.integers(-widest, widest + 1, 300), [-widest, widest, widest, -widest, fires - 1, fires]])
    return np.concatenate([x, [0, -1]]), v


@pytest.mark.parametrize("behind", [None, 1])
@every_kind
def test_a_step_equals_rational_arithmetic(
    bits: int, tau: float, v_reset: float | None, decay_input: bool, behind: int | None
) -> None:
    neuron = layer(bits, tau, v_reset, decay_input, behind=behind)
    x, v = inputs(neuron)
    wanted = [exact_step(int(a), int(b), neuron) for a, b in zip(x, v, strict=True)]
    s, after = integer_lif_step(x, v, neuron)
    assert s.tolist() == [fired for fired, _, _ in wanted]
    assert after.tolist() == [potential for _, potential, _ in wanted]
    assert 0 < s.mean() < 1
    assert (after < 0).any()
    assert min(left for _, _, left in wanted) < neuron.membrane.low == after.min()
    assert max(left for _, _, left in wanted) > neuron.membrane.high == after.max()
    if behind:
        assert any(left.denominator == 2 for _, _, left in wanted)  # ties


@every_kind
def test_int32_is_wide_enough_for_what_has_room(
    bits: int, tau: float, v_reset: float | None, decay_input: bool
) -> None:
    neuron = layer(bits, tau, v_reset, decay_input)
    x, v = inputs(neuron)
    assert neuron.room(float(abs(x).max()) / 2**neuron.current_fraction) <= INT32_MAX
    for narrow, wide in zip(
        integer_lif_step(x.astype(np.int32), v.astype(np.int32), neuron), integer_lif_step(x, v, neuron), strict=True
    ):
        np.testing.assert_array_equal(narrow, wide)
    assert integer_lif_step(x.astype(np.int32), v.astype(np.int32), neuron)[1].dtype == np.int32


@pytest.mark.parametrize(
    ("v_reset", "current", "potential", "fired", "after"),
    [
        # n 4, m 3, p 1: U = X + 2 V, fires from 32, V' = floor((R + 2) / 4)
        (0.0, 3, 0, False, 1),  # R = 3: 0.75
        (0.0, 2, 0, False, 1),  # R = 2: the tie 0.5 goes up
        (0.0, -2, 0, False, 0),  # R = -2: the tie -0.5 goes up
        (0.0, -3, 0, False, -1),  # R = -3: -0.75
        (0.0, -60, -8, False, -8),  # R = -76: -19 is below the grid
        (0.0, 31, 0, False, 7),  # R = 31: 8 is above it
        (0.0, 32, 0, True, 0),
        (0.0, 18, 7, True, 0),
        (None, 18, 7, True, 0),  # R = 32 - 32
        (None, 44, 0, True, 3),  # R = 12
        (None, 99, 7, True, 7),  # R = 81: 20 is above the grid
    ],
)
def test_a_step_computed_by_hand(v_reset: float | None, current: int, potential: int, fired: bool, after: int) -> None:
    neuron = IntegerLIF(params=LIFParams(v_reset=v_reset), membrane=Membrane(bits=4, fraction=3), current_fraction=4)
    s, v = integer_lif_step(np.array([current]), np.array([potential]), neuron)
    assert (s.tolist(), v.tolist()) == ([fired], [after])


@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_neurons_approach_those_of_real_numbers_the_more_bits_they_have(
    tau: float, decay_input: bool, v_reset: float | None
) -> None:
    params = LIFParams(tau=tau, decay_input=decay_input, v_reset=v_reset)
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**CURRENT_FRACTION), 2 * 2**CURRENT_FRACTION, (8, 5000))
    wanted, potential = lif((x / 2**CURRENT_FRACTION).astype(np.float32), params)
    agreement, distance = {}, {}
    for bits, fraction in ((4, 2), (8, 5), (16, 12)):
        membrane = Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]
        neuron = IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)
        v, same = np.zeros(x.shape[1], np.int64), np.ones(x.shape[1], bool)
        for step, real in zip(x, wanted, strict=True):
            s, v = integer_lif_step(step, v, neuron)
            same &= s == real.astype(bool)
        agreement[bits] = same.mean()
        distance[bits] = abs(v[same] / 2.0**fraction - potential[same]).max()
    assert agreement[4] < agreement[8] < agreement[16]
    assert agreement[16] > 0.995
    assert distance[4] > distance[8] > distance[16]
    assert distance[16] < tau * 2.0**-12


@every_kind
def test_no_sum_is_larger_than_room_says(bits: int, tau: float, v_reset: float | None, decay_input: bool) -> None:
    neuron = layer(bits, tau, v_reset, decay_input)
    for current in (0.0, 0.3, 7.0):
        largest = int(current * 2**CURRENT_FRACTION)
        sums = []
        for x, v in itertools.product((-largest, largest), (neuron.membrane.low, neuron.membrane.high)):
            u = neuron.gain * x + neuron.keep * v
            half = 1 << (neuron.drop - 1)
            sums += [neuron.gain * x, neuron.keep * v, u, u + half, u - neuron.threshold, u - neuron.threshold + half]
        assert max(map(abs, sums)) <= neuron.room(current) <= max(map(abs, sums)) + 2 * neuron.threshold


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (LIFParams(), None),
        (LIFParams(tau=16.0, v_reset=None, decay_input=False, v_threshold=0.3), None),
        (LIFParams(v_reset=-0.0), None),
        (LIFParams(tau=3.0), "tau is 3, which is no power of two up to 16"),
        (LIFParams(tau=1.5), "tau is 1.5, which is no power of two up to 16"),
        (LIFParams(tau=32.0), "tau is 32, which is no power of two up to 16"),
        (LIFParams(v_reset=0.1), "v_reset is 0.1, wanted 0 or a soft reset"),
        (LIFParams(v_threshold=0.0), "v_threshold is 0, wanted 0.00390625 to 8 above the resting potential 0"),
        (LIFParams(v_threshold=-1.0), "v_threshold is -1, wanted 0.00390625 to 8 above the resting potential 0"),
        (
            LIFParams(v_threshold=2.0**-18),
            "v_threshold is 3.8147e-06, wanted 0.00390625 to 8 above the resting potential 0",
        ),
        (LIFParams(v_threshold=20.0), "v_threshold is 20, wanted 0.00390625 to 8 above the resting potential 0"),
    ],
)
def test_what_keeps_neurons_from_integers_is_said(params: LIFParams, says: str | None) -> None:
    assert why_not_integer(params) == says


@pytest.mark.parametrize("bits", MEMBRANE_BITS)
@pytest.mark.parametrize("v_threshold", THRESHOLDS)
@pytest.mark.parametrize("decay_input", [True, False])
def test_currents_that_are_rounded_by_the_neurons_leave_no_int32(
    bits: int, v_threshold: float, decay_input: bool
) -> None:
    params = LIFParams(tau=float(LARGEST_TAU), v_threshold=v_threshold, decay_input=decay_input)
    headroom = {16: 3, 8: 1, 4: 0}[bits]
    fraction = min(max(bits - 1 - int(np.log2(v_threshold)) - headroom, 0), LARGEST_FRACTION)
    membrane = Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]
    neuron = IntegerLIF(params=params, membrane=membrane, current_fraction=CURRENT_FRACTION)
    assert neuron.room(REAL_LIMIT) <= INT32_MAX


@pytest.mark.parametrize(("bits", "low", "high"), [(16, -32768, 32767), (8, -128, 127), (4, -8, 7)])
def test_potentials_are_in_twos_complement(bits: int, low: int, high: int) -> None:
    membrane = Membrane(bits=bits, fraction=0)  # type: ignore[arg-type]
    assert (membrane.low, membrane.high) == (low, high)


@pytest.mark.parametrize(("bits", "fraction"), [(2, 1), (32, 1), (8, -1), (16, 15)])
def test_other_grids_are_refused(bits: int, fraction: int) -> None:
    with pytest.raises(ValidationError):
        Membrane(bits=bits, fraction=fraction)  # type: ignore[arg-type]
