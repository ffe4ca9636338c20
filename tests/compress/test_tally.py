from __future__ import annotations

import pytest
import torch

from svitkit.compress.tally import GATE_IMAGES, Tally


def answers(text: str) -> torch.Tensor:
    return torch.tensor([letter == "1" for letter in text])


def test_without_a_floor_every_image_is_counted() -> None:
    tally = Tally(6, None, None)
    assert tally.add(answers("000"))
    assert not tally.add(answers("111"))
    assert tally.accuracy() == 50.0
    assert tally.stopped() is None


def test_counting_ends_when_even_all_other_images_would_not_do_and_not_before() -> None:
    tally = Tally(10, 70.0, None)
    assert tally.add(answers("000"))  # 7 of 10 are possible
    assert tally.accuracy() == 70.0
    assert not tally.add(answers("0"))
    assert tally.accuracy() == 60.0
    stopped = tally.stopped()
    assert stopped is not None
    assert (stopped.images, stopped.accuracy, stopped.certain) == (4, 0.0, True)


def test_the_last_image_completes_the_count_even_below_the_floor() -> None:
    tally = Tally(2, 90.0, None)
    assert not tally.add(answers("10"))
    assert tally.accuracy() == 50.0
    assert tally.stopped() is None


def test_a_difference_of_six_standard_errors_is_enough_and_less_is_not() -> None:
    # k of the first 100 of 1000 images are lost: bound = 1 - k/100 + 6 sqrt(((k + 2)/100 - (k/100)^2) / 100 * 900/999)
    whole = torch.ones(1000, dtype=torch.bool)
    just = Tally(1000, 80.0, whole)
    assert just.add(answers("0" * 49 + "1" * 51))
    assert just.accuracy() == pytest.approx(100 * (0.51 + 0.6 * ((0.51 - 0.49**2) * 900 / 999) ** 0.5))
    enough = Tally(1000, 80.0, whole)
    assert not enough.add(answers("0" * 50 + "1" * 50))
    assert enough.accuracy() == pytest.approx(100 * (0.50 + 0.6 * ((0.52 - 0.50**2) * 900 / 999) ** 0.5))
    assert just.accuracy() > 80.0 > enough.accuracy()
    stopped = enough.stopped()
    assert stopped is not None
    assert not stopped.certain  # 95 % would be possible
    assert stopped.accuracy == pytest.approx(50.0)


def test_only_differences_to_the_whole_network_count() -> None:
    whole = torch.zeros(1000, dtype=torch.bool)
    whole[::2] = True
    same = Tally(1000, 49.0, whole)
    assert same.add(whole[:500])
    better = Tally(1000, 60.0, whole)
    assert better.add(torch.ones(500, dtype=torch.bool))
    worse = Tally(1000, 49.0, whole)
    assert not worse.add(torch.zeros(500, dtype=torch.bool))


def test_a_few_images_turn_nobody_away_unless_it_is_certain() -> None:
    whole = torch.ones(100_000, dtype=torch.bool)
    tally = Tally(100_000, 97.0, whole)
    assert tally.add(torch.zeros(GATE_IMAGES - 1, dtype=torch.bool))
    assert not tally.add(torch.zeros(1, dtype=torch.bool))


@pytest.mark.parametrize("share", [0.965, 0.968, 0.97])
def test_candidates_at_the_floor_are_counted_to_the_end_in_every_order(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(2000, generator=generator) < 0.98
    count = int(2000 * share)
    whole = torch.ones(2000, dtype=torch.bool)
    right[:] = True
    right[count:] = False
    floor = 100.0 * count / 2000
    for _ in range(200):
        order = torch.randperm(2000, generator=generator)
        tally = Tally(2000, floor, whole)
        for part in right[order].split(32):
            if not tally.add(part):
                break
        assert tally.complete
        assert tally.accuracy() == floor
