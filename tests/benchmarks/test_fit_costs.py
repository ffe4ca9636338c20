"""The fit of costs: it finds those that made the observations, and observes what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import fit_costs
from benchmarks.cost_grid import GridLayer, drive, layer_graph
from benchmarks.cost_networks import CostNetwork
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
        taken = cycles * (1 + noise * rng.normal())
        found.append(Observation(program="p", kernel="event", counts=counts, cycles=taken, share=1 / 40))
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


def test_every_call_of_a_network_is_observed_and_times_that_are_there_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = {"T": 2, "in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 10}
    arguments = {**frames, "patch_size": 4, "embed_dims": 16, "num_heads": 2, "depths": 1}
    tiny = CostNetwork(name="tiny", family="spikformer", arguments=arguments, rate=0.2)
    monkeypatch.setattr(fit_costs, "COST_NETWORKS", (tiny,))
    host = fit_costs.load_board("host")
    seen = list(observe(host.mcpu, 1, tmp_path))
    assert len({each.program for each in seen}) == 2  # by rows and densely
    assert {"list", "attention"} <= {each.kernel.split("_")[0] for each in seen}
    assert all(each.counts["call"] == 1 for each in seen)
    assert sum(each.share for each in seen) == pytest.approx(2)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    list(observe(host.mcpu, 1, tmp_path))
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_a_cpu_that_this_machine_is_not_cannot_be_timed() -> None:
    with pytest.raises(ConfigError, match="CPU model that this machine can time"):
        board_of("carmel")
