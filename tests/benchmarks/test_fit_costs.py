"""The fit of costs: it finds those that made the observations, and observes what it should."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import fit_costs
from benchmarks.cost_grid import GridLayer, drive, layer_graph
from benchmarks.fit_costs import Observation, board_of, fit, observe
from svitkit.errors import ConfigError
from svitkit.lif import LIFParams, lif

COSTS = {"turn": 2.0, "list": 15.0, "call": 400.0}


def observations(noise: float = 0.0) -> list[Observation]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        counts = {"turn": float(rng.integers(1, 9999)), "list": float(rng.integers(1, 999)), "call": 1.0}
        cycles = sum(COSTS[name] * count for name, count in counts.items())
        found.append(Observation(kernel="event", counts=counts, cycles=cycles * (1 + noise * rng.normal())))
    return found


def test_costs_that_made_the_observations_are_found() -> None:
    fitted = fit(observations())
    assert fitted.cycles == pytest.approx(COSTS)
    assert max(fitted.errors["event"]) < 1e-6


def test_noise_shows_in_the_errors_and_hardly_in_the_costs() -> None:
    fitted = fit(observations(noise=0.05))
    assert fitted.cycles["turn"] == pytest.approx(2.0, rel=0.1)
    assert 0.01 < np.median(fitted.errors["event"]) < 0.1


def test_known_costs_are_taken_as_they_are_and_none_is_below_0() -> None:
    fitted = fit(observations(), {"list": 20.0})
    assert fitted.cycles["list"] == 20.0
    assert min(fitted.cycles.values()) >= 0


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_the_drive_makes_neurons_fire_at_the_rate(rate: float) -> None:
    layer = GridLayer(kind="fp32", inputs=64, outputs=8, side=8, kernel=1)
    fired = lif(drive(layer, rate, 1)[0], LIFParams())[0]
    assert fired.mean() == pytest.approx(rate, rel=0.05)
    assert layer_graph(layer, rate).metadata.lif_layers[0].firing_rate == rate


def test_every_counted_call_of_a_layer_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_costs, "SHAPES", ({"inputs": 32, "outputs": 32, "side": 2, "kernel": 1},))
    monkeypatch.setattr(fit_costs, "KINDS", ("int4",))
    monkeypatch.setattr(fit_costs, "RATES", (0.2,))
    host = fit_costs.load_board("host")
    seen = [each for each in observe(host.mcpu, 2) if each.cycles > 0]
    assert {"list", "event_int8_matmul_lif"} <= {each.kernel for each in seen}
    assert all(each.counts["call"] == 1 for each in seen)


def test_a_cpu_that_this_machine_is_not_cannot_be_timed() -> None:
    with pytest.raises(ConfigError, match="CPU model that this machine can time"):
        board_of("carmel")
