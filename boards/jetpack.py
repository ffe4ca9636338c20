"""Which JetPack, and which CUDA driver, a release of NVIDIA's Linux for Tegra (L4T) is.

On a Jetson the CUDA driver is part of L4T, and not of the CUDA toolkit
(https://developer.nvidia.com/blog/simplifying-cuda-upgrades-for-nvidia-jetson-users/): its version follows from the
release. Sources: of JetPack jetson_stats (jtop/core/jetson_variables.py) and jetson-containers
(jetson_containers/l4t_version.py); of CUDA those of the boards' files, and the README of
https://github.com/OE4T/meta-tegra.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A release of L4T, the JetPack that has it, and the version of its CUDA driver."""

    l4t: str
    jetpack: str
    cuda: str


RELEASES = (
    Release("31.0.1", "4.0", "10.0"),
    Release("31.1.0", "4.1.1", "10.0"),
    Release("32.1.0", "4.2", "10.0"),
    Release("32.2.0", "4.2.1", "10.0"),
    Release("32.2.1", "4.2.2", "10.0"),
    Release("32.2.3", "4.2.3", "10.0"),
    Release("32.3.1", "4.3", "10.0"),
    Release("32.4.3", "4.4", "10.2"),
    Release("32.4.4", "4.4.1", "10.2"),
    Release("32.5.0", "4.5", "10.2"),
    Release("32.5.1", "4.5.1", "10.2"),
    Release("32.6.1", "4.6", "10.2"),
    Release("32.7.1", "4.6.1", "10.2"),
    Release("32.7.2", "4.6.2", "10.2"),
    Release("32.7.3", "4.6.3", "10.2"),
    Release("32.7.4", "4.6.4", "10.2"),
    Release("32.7.5", "4.6.5", "10.2"),
    Release("32.7.6", "4.6.6", "10.2"),
    Release("34.1.0", "5.0", "11.4"),
    Release("34.1.1", "5.0.1", "11.4"),
    Release("35.1.0", "5.0.2", "11.4"),
    Release("35.2.1", "5.1", "11.4"),
    Release("35.3.1", "5.1.1", "11.4"),
    Release("35.4.1", "5.1.2", "11.4"),
    Release("35.5.0", "5.1.3", "11.4"),
    Release("35.6.0", "5.1.4", "11.4"),
    Release("35.6.1", "5.1.5", "11.4"),
    Release("36.2.0", "6.0", "12.2"),
    Release("36.3.0", "6.0", "12.2"),
    Release("36.4.0", "6.1", "12.6"),
    Release("36.4.3", "6.2", "12.6"),
    Release("36.4.4", "6.2.1", "12.6"),
    Release("39.2.0", "7.2", "13.2"),
)
"""The oldest first."""


def release_of(l4t: str) -> Release | None:
    """Returns the release that a version of L4T is, or the last one before it of its branch; None if there is none.

    Args:
        l4t: such as ``36.4.3``; its branch is 36.4.
    """
    own = version_numbers(l4t)
    known = [(version_numbers(release.l4t), release) for release in RELEASES]
    return next((release for other, release in reversed(known) if other[:2] == own[:2] and other <= own), None)


def first_release(jetpack: str) -> Release | None:
    """Returns the first release of a JetPack; None if it is not known."""
    return next((release for release in RELEASES if release.jetpack == jetpack), None)


def version_numbers(text: str) -> tuple[int, ...]:
    """Returns a version for comparison: ``36.4.3`` as (36, 4, 3)."""
    return tuple(int(part) for part in text.split("."))
