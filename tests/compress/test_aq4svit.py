"""The search for bits, on networks whose accuracy is a formula."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from itertools import product

import pytest
from pydantic import ValidationError

from svitkit.compress.aq4svit import AQ4SViTConfig, BitOutcome, BitSearch, full_evaluations
from svitkit.compress.bits import BitPlan, blocks, set_bits, stages
from svitkit.compress.journal import Measurement, plan_key

LAYERS = ("stem.0.conv", "stem.1.conv", "blocks.0.qkv", "blocks.0.fc", "blocks.1.qkv", "blocks.1.fc", "head")
WEIGHTS = dict(zip(LAYERS, (100, 4000, 3000, 9000, 3000, 9000, 200), strict=True))
Loss = Callable[[dict[str, int]], float]


def uniform(bits: int) -> BitPlan:
    return BitPlan(layers=tuple((name, bits) for name in LAYERS))


class Laboratory:
    """Measures by formula; drift is the loss with noise."""

    def __init__(self, loss: Loss, *, noise: float = 0.0, membranes: dict[int | None, float] | None = None) -> None:
        self.loss, self.noise, self.membranes = loss, noise, membranes or {}
        self.measured: list[BitPlan] = []

    def size(self, plan: BitPlan) -> int:
        return sum(WEIGHTS[name] * bits for name, bits in plan.layers) // 8

    def each(self, plans: Sequence[BitPlan], *, floor: float | None = None) -> Generator[Measurement, None, None]:
        for plan in plans:
            self.measured.append(plan)
            accuracy = 90.0 - self.loss(plan.bits()) - self.membranes.get(plan.membranes, 0.0)
            yield Measurement(key=plan_key(plan), accuracy=accuracy, parameter_bytes=self.size(plan))

    def run(self, **settings: object) -> BitOutcome:
        laboratory = self

        class Gauge:
            def each(
                self, plans: Sequence[BitPlan], *, floor: float | None = None
            ) -> Generator[Measurement, None, None]:
                for plan in plans:
                    noise = 1 + laboratory.noise * random.Random(plan.label()).uniform(-1, 1)
                    drift = (laboratory.loss(plan.bits()) + 0.01) * noise
                    key = plan_key(plan, "gate")
                    yield Measurement(key=key, accuracy=0.0, parameter_bytes=laboratory.size(plan), drift=drift)

        search = BitSearch(
            config=AQ4SViTConfig(**settings),  # type: ignore[arg-type]
            evaluator=self,
            gauge=Gauge(),
            size=self.size,
            baseline=Measurement(key="whole", accuracy=90.0, parameter_bytes=4 * sum(WEIGHTS.values())),
            images=10**12,
            original_bytes=4 * sum(WEIGHTS.values()),
            progress=lambda stage, done, total: None,
        )
        return search.run(LAYERS)


def additive(costs: dict[str, float]) -> Loss:
    """Every layer costs its own, four times as much for every bit less below 6."""
    return lambda bits: sum(costs[name] * 4.0 ** (6 - width) / 256 for name, width in bits.items() if width < 6)


UNEVEN = additive(dict(zip(LAYERS, (0.0, 9.0, 0.5, 0.1, 2.0, 0.1, 0.0), strict=True)))


def test_blocks_end_with_the_first_number_and_stages_hold_them() -> None:
    assert [part.name for part in blocks(LAYERS)] == ["stem.0", "stem.1", "blocks.0", "blocks.1", "head"]
    assert [part.name for part in stages(LAYERS)] == ["stem", "blocks", "head"]
    assert blocks(["embed.conv", "embed.shortcut.0"])[1].layers == ("embed.shortcut.0",)


def test_where_the_fewest_bits_do_no_harm_one_look_is_enough() -> None:
    outcome = Laboratory(lambda bits: 0.0).run(max_drop=1.0)
    assert dict(outcome.plan.layers) == {**dict.fromkeys(LAYERS, 2), LAYERS[0]: 8, LAYERS[-1]: 8}
    assert full_evaluations(outcome.tried) == 2  # of the bits, and of the membranes
    assert outcome.satisfied


def test_the_greedy_search_comes_near_to_the_best_of_all_assignments() -> None:
    outcome = Laboratory(UNEVEN).run(max_drop=1.0)
    assert UNEVEN(outcome.plan.bits()) <= 1.0
    floors = {LAYERS[0]: 8, LAYERS[-1]: 8}
    best = min(
        Laboratory(UNEVEN).size(plan)
        for widths in product((8, 6, 4, 3, 2), repeat=len(blocks(LAYERS)))
        if UNEVEN((plan := _assigned(widths, floors)).bits()) <= 1.0
    )
    assert Laboratory(UNEVEN).size(outcome.plan) <= 1.1 * best


def _assigned(widths: Sequence[int], floors: dict[str, int]) -> BitPlan:
    plan = uniform(8)
    for part, bits in zip(blocks(LAYERS), widths, strict=True):
        plan = set_bits(plan, part.layers, bits, floors)
    return plan


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_gate_saves_most_evaluations_and_hardly_any_bytes(noise: float) -> None:
    gated, ungated = (Laboratory(UNEVEN, noise=noise).run(max_drop=1.0, gate=gate) for gate in (True, False))
    assert UNEVEN(gated.plan.bits()) <= 1.0
    assert full_evaluations(gated.tried) < full_evaluations(ungated.tried)
    assert gated.measurement.parameter_bytes <= 1.1 * ungated.measurement.parameter_bytes


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_beam_is_never_worse_than_the_greedy_search(noise: float) -> None:
    greedy, beam = (Laboratory(UNEVEN, noise=noise).run(max_drop=1.0, beam_width=width, audit=0) for width in (0, 4))
    assert UNEVEN(beam.plan.bits()) <= 1.0
    assert beam.measurement.parameter_bytes <= greedy.measurement.parameter_bytes


def test_layers_at_both_ends_have_the_bits_asked_for() -> None:
    bits = Laboratory(lambda bits: 0.0).run(protected_bits=4).plan.bits()
    assert (bits[LAYERS[0]], bits[LAYERS[-1]]) == (4, 4)
    assert set(bits.values()) == {2, 4}


def test_what_the_gate_turned_away_is_sampled_and_taken_if_it_was_wrong() -> None:
    class Misled(Laboratory):
        """Drift says that the fewest bits harm everywhere; accuracy says so for a uniform network alone."""

    def loss(bits: dict[str, int]) -> float:
        return 5.0 if all(bits[name] == 2 for name in LAYERS[1:-1]) else 0.0

    laboratory = Misled(loss)
    outcome = laboratory.run(max_drop=1.0, audit=50)
    audited = [tried for tried in outcome.tried if tried.level == "audit"]
    smaller = [tried for tried in audited if tried.kept]
    assert all(laboratory.size(outcome.plan) <= laboratory.size(tried.plan) for tried in smaller)
    assert loss(outcome.plan.bits()) == 0.0


def test_where_every_rounding_costs_too_much_the_widest_is_kept_and_not_satisfied() -> None:
    outcome = Laboratory(lambda bits: 50.0).run(max_drop=1.0)
    assert outcome.plan.bits() == uniform(8).bits()
    assert not outcome.satisfied


def test_a_saving_that_is_missed_is_not_satisfied() -> None:
    outcome = Laboratory(UNEVEN).run(max_drop=0.01, min_saving=0.9)
    assert not outcome.satisfied
    assert UNEVEN(outcome.plan.bits()) <= 0.01


@pytest.mark.parametrize(
    "settings", [{"widths": (2, 4)}, {"widths": (4, 4)}, {"widths": (9,)}, {"widths": ()}, {"beam_width": -1}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AQ4SViTConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("losses", "found"), [({4: 0.1}, 4), ({8: 0.4, 4: 5.0}, 8), ({8: 9.0, 4: 0.0}, 4), ({8: 9.0, 4: 9.0}, 16)]
)
def test_membranes_get_the_fewest_bits_that_keep_accuracy(losses: dict[int | None, float], found: int) -> None:
    laboratory = Laboratory(additive(dict.fromkeys(LAYERS, 0.0)), membranes=losses)
    outcome = laboratory.run(max_drop=1.0)
    assert outcome.plan.membranes == found
    assert {plan.membranes for plan in laboratory.measured} <= {16, 8, 4}
    assert outcome.plan.bits()[LAYERS[2]] == 2


def test_membranes_may_be_left_as_they_are() -> None:
    outcome = Laboratory(additive(dict.fromkeys(LAYERS, 0.0))).run(membranes=())
    assert outcome.plan.membranes is None


def test_a_beam_looks_for_nothing_where_every_layer_has_the_fewest_bits() -> None:
    laboratory = Laboratory(lambda bits: 0.0)
    outcome = laboratory.run(max_drop=1.0, beam_width=4)
    assert not [tried for tried in outcome.tried if tried.level == "beam"]
    assert full_evaluations(outcome.tried) == 2
