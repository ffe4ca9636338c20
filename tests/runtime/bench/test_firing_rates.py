import numpy as np
import pytest

from svitkit.errors import VerificationError
from svitkit.runtime.bench.firing_rates import firing_rates, read_taps

PROGRAM = """svit-program 2
sizes weights 0 states 0 workspace 64
tensor 0 input float32 workspace 0 4 1 1 2 2
tensor 1 spikes_a uint8 workspace 16 2 2 3
tensor 2 spikes_b float32 workspace 32 1 2
call k0 a_lif 2 0 1
call k1 b_lif 2 1 2
tap b_lif 2 1
taporder b_lif 1 0
tap a_lif 1 0
taporder a_lif 2 1 0
end
"""


def test_taps_are_listed_in_the_programs_order_with_one_byte_per_neuron() -> None:
    assert list(read_taps(PROGRAM).items()) == [("b_lif", 2), ("a_lif", 6)]


def test_rates_are_averaged_over_records_and_neurons_of_each_layer() -> None:
    records = [[1, 1, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 1, 1]]
    rates = firing_rates(np.array(records, np.uint8).ravel(), read_taps(PROGRAM))
    assert rates == {"b_lif": 0.75, "a_lif": 0.25}


@pytest.mark.parametrize("count", [0, 7, 15])
def test_spikes_that_are_no_whole_records_are_refused(count: int) -> None:
    with pytest.raises(VerificationError, match=f"{count} bytes of spikes are no multiple of the 8"):
        firing_rates(np.zeros(count, np.uint8), read_taps(PROGRAM))


@pytest.mark.parametrize("line", ["tap lif 9 0", "tap lif", "tensor 1", "tensor 0 x uint8 workspace 0 1 two"])
def test_a_broken_program_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(VerificationError, match=rf"broken line: '{line}'"):
        read_taps(f"svit-program 2\n{line}\n")
