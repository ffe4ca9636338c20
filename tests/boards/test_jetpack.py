from __future__ import annotations

import pytest

from svitkit.boards.devices import board_gpus
from svitkit.boards.jetpack import RELEASES, Release, first_release, release_of, version_numbers


@pytest.mark.parametrize(
    ("l4t", "jetpack", "cuda"),
    [("32.7.1", "4.6.1", "10.2"), ("32.7.9", "4.6.6", "10.2"), ("35.4.1", "5.1.2", "11.4"), ("36.4.3", "6.2", "12.6")],
)
def test_a_release_of_l4t_names_its_jetpack_and_its_cuda_driver(l4t: str, jetpack: str, cuda: str) -> None:
    release = release_of(l4t)
    assert release is not None
    assert (release.jetpack, release.cuda) == (jetpack, cuda)


@pytest.mark.parametrize("l4t", ["36.9.0", "32.4.1", "99", "40.1.2.3"])
def test_a_release_that_nobody_wrote_down_has_no_jetpack(l4t: str) -> None:
    assert release_of(l4t) is None


def test_releases_stand_in_order_and_newer_ones_have_no_older_cuda() -> None:
    def order(release: Release) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return version_numbers(release.l4t), version_numbers(release.cuda)

    assert list(RELEASES) == sorted(RELEASES, key=order)
    assert [version_numbers(release.cuda) for release in RELEASES] == sorted(
        version_numbers(release.cuda) for release in RELEASES
    )


@pytest.mark.parametrize("name", [name for name, gpu in board_gpus().items() if gpu.api == "cuda"])
def test_the_ends_of_a_boards_ranges_belong_together(name: str) -> None:
    gpu = board_gpus()[name]
    assert gpu.jetpack is not None
    releases = [first_release(jetpack) for jetpack in gpu.jetpack]
    assert tuple(release.cuda if release else None for release in releases) == gpu.cuda
